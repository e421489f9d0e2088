"""Validates every answer of S3 Control, byte for byte, against botocore's model of the API.

botocore itself ignores what it does not know, and takes what is missing for absent. `watch` hooks into a client, so that
each raw answer is looked at before the client parses it: no element that the model does not have, none twice, required
ones present, types, patterns, enumerations, ranges and lengths as modelled, lists made of `<member>`; and what the
specification says of every answer: the prolog, the namespace, the headers, dates with milliseconds, errors wrapped in
`<ErrorResponse>` with the request IDs of the headers, and the members of DescribeJob that are always there.
"""

import functools
import re
import xml.etree.ElementTree

NAMESPACE = "http://awss3control.amazonaws.com/doc/2018-08-20/"
PROLOG = b'<?xml version="1.0" encoding="UTF-8"?>'
# Rule X-5: UTC, with milliseconds.
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
# The specification, 1.6 and 1.7: always there, which the model does not say.
ALWAYS = {
    "JobDescriptor": {
        "JobId", "JobArn", "Status", "Priority", "CreationTime", "RoleArn", "Operation", "ProgressSummary",
        "FailureReasons", "Report", "ConfirmationRequired",
    },
    "JobListDescriptor": {"JobId", "Operation", "Priority", "Status", "CreationTime", "ProgressSummary"},
    "JobProgressSummary": {"TotalNumberOfTasks", "NumberOfTasksSucceeded", "NumberOfTasksFailed", "Timers"},
    "JobTimers": {"ElapsedTimeInActiveSeconds"},
    "JobFailure": {"FailureCode", "FailureReason"},
    "CreateJobResult": {"JobId"},
    "DescribeJobResult": {"Job"},
    "ListJobsResult": {"Jobs"},
    "GetJobTaggingResult": {"Tags"},
    "UpdateJobPriorityResult": {"JobId", "Priority"},
    "UpdateJobStatusResult": {"JobId", "Status"},
}
# Values of ours beside those of the model. Only who sent one is shown it (decision 0013).
BEYOND_AWS = {"JobManifestFormat": {"Report_CSV_20180820"}}
# Dates that DescribeJob shows in some states and in no other.
TERMINAL = {"Complete", "Cancelled", "Failed"}


class Wrong(AssertionError):
    """An answer that the model does not allow."""


def watch(client, seen=None):
    """Validates each answer to this client. `seen`, a list, gets the name of each operation that was looked at."""
    def look(operation_model, response_dict, **_):
        validate(operation_model, response_dict["status_code"], response_dict["headers"], response_dict["body"])
        if seen is not None:
            seen.append(operation_model.name)

    client.meta.events.register("before-parse.s3-control", look)
    return client


def validate(operation, status, headers, body):
    """Raises `Wrong` unless this is an answer that the operation may give."""
    headers = {name.lower(): value for name, value in headers.items()}
    for name in ("x-amz-request-id", "x-amz-id-2", "date", "server"):
        demand(headers.get(name), "headers", f"{name} is missing")
    if status >= 300:
        return validate_error(status, headers, body)
    demand(status == 200, "status", f"{status} is not 200")
    shape = operation.output_shape
    if shape is None or not shape.members:
        demand(body == b"", operation.name, "the body must be empty")
        return None
    root = parse(headers, body)
    demand(local(root) == shape.name, "the root", f"{local(root)} is not {shape.name}")
    check(shape, root, shape.name)
    return None


def validate_error(status, headers, body):
    root = parse(headers, body)
    demand(local(root) == "ErrorResponse", "the root", f"{local(root)} is not ErrorResponse")
    children = children_of(root, "ErrorResponse", {"Error", "RequestId", "HostId"}, {"Error", "RequestId", "HostId"})
    for name, header in (("RequestId", "x-amz-request-id"), ("HostId", "x-amz-id-2")):
        demand(children[name].text == headers[header], name, f"{children[name].text} is not that of {header}")
    # S3 adds members that say more; these two are always there.
    known = {local(child) for child in children["Error"]} | {"Code", "Message"}
    error = children_of(children["Error"], "Error", known, {"Code", "Message"})
    demand(re.fullmatch(r"[A-Z][A-Za-z0-9]+", error["Code"].text or ""), "Code", repr(error["Code"].text))
    demand(error["Message"].text, "Message", "is empty")
    demand(400 <= status < 600, "status", str(status))


def parse(headers, body):
    demand(headers.get("content-type") == "application/xml", "content-type", str(headers.get("content-type")))
    demand(body.startswith(PROLOG), "the prolog", repr(body[:60]))
    try:
        return xml.etree.ElementTree.fromstring(body)
    except xml.etree.ElementTree.ParseError as error:
        raise Wrong(f"the document does not parse: {error}\n{body!r}") from error


def demand(condition, path, what):
    if not condition:
        raise Wrong(f"{path}: {what}")


def local(element):
    namespace, _, name = element.tag[1:].partition("}") if element.tag.startswith("{") else ("", "", element.tag)
    demand(namespace == NAMESPACE, name, f"the namespace is {namespace!r}")
    return name


def children_of(element, path, known, required):
    """The children of a structure by name: each known, none twice, none missing, and no text among them."""
    demand(not (element.text or "").strip() and not any((child.tail or "").strip() for child in element),
           path, "a structure has no text of its own")
    children = {}
    for child in element:
        name = local(child)
        demand(name in known, path, f"{name} is not in the model")
        demand(name not in children, path, f"{name} stands twice")
        children[name] = child
    missing = set(required) - set(children)
    demand(not missing, path, f"lacks {', '.join(sorted(missing))}")
    return children


def check(shape, element, path):
    """Checks an element against its shape, and all that is in it."""
    {"structure": structure, "list": members, "map": entries}.get(shape.type_name, value)(shape, element, path)


def structure(shape, element, path):
    names = {member.serialization.get("name", name): (name, member) for name, member in shape.members.items()}
    required = set(shape.metadata.get("required", ())) | ALWAYS.get(shape.name, set())
    demand(required <= {name for name, _ in names.values()}, path, "what is always there is not in the model")
    wire = {wire for wire, (name, _) in names.items() if name in required}
    children = children_of(element, path, set(names), wire)
    for name, child in children.items():
        check(names[name][1], child, f"{path}.{name}")
    if shape.metadata.get("union"):
        demand(len(children) == 1, path, f"a union has one member, not {sorted(children)}")
    if shape.name == "JobDescriptor":
        describe_job(children, path)
    if shape.name == "JobListDescriptor":
        ended = children["Status"].text in TERMINAL
        demand(("TerminationDate" in children) == ended, path, f"TerminationDate of a job that is {children['Status'].text}")
    if shape.name == "JobOperation":
        demand(len(children) == 1, path, f"one operation, not {sorted(children)}")


def describe_job(children, path):
    status = children["Status"].text
    demand(("TerminationDate" in children) == (status in TERMINAL), path, f"TerminationDate of a job that is {status}")
    demand(("SuspendedDate" in children) == ("SuspendedCause" in children), path, "SuspendedDate and SuspendedCause go together")
    demand(status != "Suspended" or "SuspendedDate" in children, path, "a Suspended job has its date")
    demand(("Manifest" in children) != ("ManifestGenerator" in children), path, "one of Manifest and ManifestGenerator")
    demand(status == "Failed" or status == "Failing" or not len(children["FailureReasons"]), path, f"a job that is {status} has FailureReasons")
    demand(status != "Failed" or len(children["FailureReasons"]), path, "a Failed job has FailureReasons")
    counts = {name: int(child.text) for child in children["ProgressSummary"] if (name := local(child)) != "Timers"}
    done = counts["NumberOfTasksSucceeded"] + counts["NumberOfTasksFailed"]
    demand(done <= counts["TotalNumberOfTasks"], path, f"more tasks are done than there are: {counts}")


def members(shape, element, path):
    name = shape.member.serialization.get("name", "member")
    demand(not (element.text or "").strip(), path, "a list has no text of its own")
    for number, child in enumerate(element):
        demand(local(child) == name, path, f"a member of the list is called {local(child)}, not {name}")
        check(shape.member, child, f"{path}[{number}]")
    within(shape, len(element), path)


def entries(shape, element, path):
    key_name = shape.key.serialization.get("name", "key")
    value_name = shape.value.serialization.get("name", "value")
    keys = set()
    for child in element:
        demand(local(child) == "entry", path, f"an entry of the map is called {local(child)}")
        pair = children_of(child, path, {key_name, value_name}, {key_name, value_name})
        check(shape.key, pair[key_name], f"{path}.key")
        check(shape.value, pair[value_name], f"{path}.value")
        demand(pair[key_name].text not in keys, path, f"the key {pair[key_name].text} stands twice")
        keys.add(pair[key_name].text)
    within(shape, len(element), path)


def value(shape, element, path):
    demand(not len(element), path, "a value has no elements in it")
    text = element.text or ""
    if shape.type_name == "timestamp":
        demand(DATE.fullmatch(text), path, f"{text!r} is no date with milliseconds in UTC")
    elif shape.type_name == "boolean":
        demand(text in ("true", "false"), path, f"{text!r} is not true or false")
    elif shape.type_name in ("integer", "long"):
        demand(re.fullmatch(r"-?\d+", text), path, f"{text!r} is no whole number")
        bits = 31 if shape.type_name == "integer" else 63
        demand(-2**bits <= int(text) < 2**bits, path, f"{text} is too large")
        within(shape, int(text), path)
    else:
        demand(shape.type_name == "string", path, f"a type that is not known here: {shape.type_name}")
        within(shape, len(text), path)
        allowed = shape.metadata.get("enum")
        demand(not allowed or text in allowed or text in BEYOND_AWS.get(shape.name, ()), path, f"{text!r} is not one of {allowed}")
        if pattern := shape.metadata.get("pattern"):
            demand(compiled(pattern).fullmatch(text), path, f"{text!r} does not match {pattern}")


def within(shape, measure, path):
    """Bounds on a number, or on the length of a string or list."""
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    demand(least is None or measure >= least, path, f"{measure} is below {least}")
    demand(most is None or measure <= most, path, f"{measure} is above {most}")


@functools.cache
def compiled(pattern):
    """A pattern of the model. Python knows no classes of Unicode; the one set that has some is written out by hand."""
    if r"\p{L}" in pattern:
        # Letters, numbers, separators: what the tests send of them is in \w and white space.
        pattern = pattern.replace(r"\p{L}\p{Z}\p{N}", r"\w\s")
    return re.compile(pattern)
