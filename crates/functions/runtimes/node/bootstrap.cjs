// Longshore's Lambda runtime client for Node.js 16 and newer: nothing but the standard library.
//
//     node bootstrap.cjs HANDLER
//
// It speaks the Lambda Runtime API over one kept connection. The answer to an event and the request for the next one go
// out in one piece, so an invocation is one write and one read. What a handler sees (context object, callback, error
// payloads, console) is what AWS's own client gives it.
"use strict";

const net = require("node:net");
const fs = require("node:fs");
const path = require("node:path");
const { createRequire } = require("node:module");
const { pathToFileURL } = require("node:url");
const { Writable } = require("node:stream");
const { format } = require("node:util");

const env = process.env;
const runtime = env.AWS_LAMBDA_RUNTIME_API;
const taskRoot = env.LAMBDA_TASK_ROOT || process.cwd();
const host = ` HTTP/1.1\r\nHost: ${runtime}\r\n`;
const invocation = "/2018-06-01/runtime/invocation/";
const NEXT = `GET ${invocation}next${host}\r\n`;

/** A failure that has a name of Lambda's. */
class Fault extends Error {
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

// --- the log: time, request and level before each line, as on AWS ---

let currentId = "";

function printer(level) {
  return (...args) =>
    process.stdout.write(`${new Date().toISOString()}\t${currentId || "undefined"}\t${level}\t${format(...args)}\n`);
}

function printerOfJson(level) {
  return (...args) => {
    const entry = { timestamp: new Date().toISOString(), level, requestId: currentId || undefined };
    entry.message = args.length === 1 && typeof args[0] === "object" && args[0] !== null ? args[0] : format(...args);
    let line;
    try {
      line = JSON.stringify(entry);
    } catch {
      line = JSON.stringify({ ...entry, message: format(...args) });
    }
    process.stdout.write(line + "\n");
  };
}

const print = env.AWS_LAMBDA_LOG_FORMAT === "JSON" ? printerOfJson : printer;
for (const [name, level] of Object.entries({
  log: "INFO", info: "INFO", debug: "DEBUG", warn: "WARN", error: "ERROR", trace: "TRACE",
})) {
  console[name] = print(level);
}

// --- the handler ---

function resolveFile(name) {
  const base = path.resolve(taskRoot, name);
  for (const file of [base, `${base}.js`, `${base}.mjs`, `${base}.cjs`]) {
    if (fs.statSync(file, { throwIfNoEntry: false })?.isFile()) return file;
  }
  // A module of a layer or of node_modules.
  return createRequire(path.join(taskRoot, "handler.js")).resolve(name);
}

async function load(file) {
  if (!file.endsWith(".mjs")) {
    try {
      return createRequire(path.join(taskRoot, "handler.js"))(file);
    } catch (error) {
      const isModule = error && (error.code === "ERR_REQUIRE_ESM" || error.code === "ERR_REQUIRE_ASYNC_MODULE");
      if (!isModule) throw error;
    }
  }
  return import(pathToFileURL(file).href);
}

async function findHandler(name) {
  // dir/file.export.inner: the file ends at the first dot behind the last slash.
  const base = path.basename(name);
  const match = /^([^.]*)\.(.+)$/.exec(base);
  if (!match || name.includes("..")) throw new Fault("Runtime.MalformedHandlerName", "Bad handler");
  const moduleName = path.join(name.slice(0, name.length - base.length), match[1]);
  let loaded;
  try {
    loaded = await load(resolveFile(moduleName));
  } catch (error) {
    if (error instanceof SyntaxError) throw named(error, "Runtime.UserCodeSyntaxError");
    const missing = error && (error.code === "MODULE_NOT_FOUND" || error.code === "ERR_MODULE_NOT_FOUND");
    if (missing) throw named(error, "Runtime.ImportModuleError");
    throw error;
  }
  const walk = (from) => match[2].split(".").reduce((value, key) => value?.[key], from);
  const handler = walk(loaded) ?? walk(loaded?.default);
  if (!handler) throw new Fault("Runtime.HandlerNotFound", `${name} is undefined or not exported`);
  if (typeof handler !== "function") throw new Fault("Runtime.HandlerNotFound", `${name} is not a function`);
  return handler;
}

function named(error, name) {
  const fault = new Fault(name, String(error));
  fault.stack = error.stack;
  return fault;
}

// --- errors ---

function describe(error) {
  if (error instanceof Error) {
    return {
      errorType: error.name || "Error",
      errorMessage: error.message,
      trace: (error.stack || "").split("\n"),
    };
  }
  return { errorType: typeof error, errorMessage: String(error), trace: [] };
}

function stringify(error) {
  try {
    return JSON.stringify(describe(error));
  } catch (inner) {
    return JSON.stringify({ errorType: "Error", errorMessage: String(inner), trace: [] });
  }
}

// --- handlers that stream their response ---
//
// The host collects a streamed response before it answers, so it is collected here: the caller sees the same, and an error
// in the middle needs no trailers.

/** The largest response in bytes. One byte more is kept, so that the host says that it is too large. */
const RESPONSE_BYTES_MAX = 6291556;
/** AWS's name for the mark of such a handler. */
const STREAMING = Symbol.for("aws.lambda.runtime.handler.streaming");

class ResponseStream extends Writable {
  constructor(onEnd) {
    let kept = [];
    let left = RESPONSE_BYTES_MAX + 1;
    super({
      write(chunk, _encoding, done) {
        if (left > 0) kept.push(chunk.length > left ? chunk.subarray(0, left) : chunk);
        left = Math.max(left - chunk.length, 0);
        done();
      },
      final(done) {
        done();
        onEnd(Buffer.concat(kept));
        kept = [];
      },
    });
  }

  write(chunk, ...rest) {
    const plain = typeof chunk === "string" || chunk instanceof Uint8Array;
    return super.write(plain ? chunk : JSON.stringify(chunk), ...rest);
  }

  /** For callers over HTTP, of which there are none here. */
  setContentType() {}
}

globalThis.awslambda = {
  streamifyResponse(streaming) {
    streaming[STREAMING] = "response";
    return streaming;
  },
  HttpResponseStream: {
    /** Puts what shall be status and headers of an HTTP answer before the body. */
    from(stream, prelude) {
      stream.setContentType("application/vnd.awslambda.http-integration-response");
      stream.write(JSON.stringify(prelude));
      stream.write(Buffer.alloc(8));
      return stream;
    },
  },
};

function invokeStreaming(invoked, event, context) {
  const stream = new ResponseStream((body) => answer(invoked, "response", body));
  stream.on("error", (error) => fail(invoked, error));
  // When nothing is left to do and the stream is open, nobody will end it.
  invoked.word = () => fail(invoked, new Error("The response stream was not ended"));
  Promise.resolve(handler(event, stream, context)).catch((error) => fail(invoked, error));
}

// --- the connection ---

const [address, port] = runtime.split(/:(?=\d+$)/);
const socket = net.connect({ host: address, port: Number(port), noDelay: true });
let chunks = [];
let have = 0;
let need = 0; // bytes of the message that has begun; 0 while its head is not complete

function postHead(target, length, extra) {
  return `POST ${target}${host}Content-Type: application/json\r\n${extra}Content-Length: ${length}\r\n\r\n`;
}

function post(target, body, extra) {
  return postHead(target, Buffer.byteLength(body), extra) + body;
}

const headers = {};
for (const name of ["aws-request-id", "deadline-ms", "invoked-function-arn", "trace-id", "client-context", "invocation-id", "cognito-identity"]) {
  headers[name] = new RegExp(`\\r\\nlambda-runtime-${name}: *([^\\r]*)`, "i");
}
const contentLength = /\r\ncontent-length: *(\d+)/i;

/** Takes whole messages out of what has arrived. */
function messages(onMessage) {
  for (;;) {
    if (have === 0 || (need > 0 && have < need)) return;
    const all = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks, have);
    chunks = [all];
    const end = all.indexOf("\r\n\r\n");
    if (end < 0) return;
    const head = all.latin1Slice(0, end + 2);
    const match = contentLength.exec(head);
    const total = end + 4 + (match ? Number(match[1]) : 0);
    if (have < total) {
      need = total;
      return;
    }
    need = 0;
    chunks = have === total ? [] : [all.subarray(total)];
    have -= total;
    onMessage(head, all.subarray(end + 4, total));
  }
}

let handler;
let running; // the invocation in hand
let waitingForAck = false;

socket.on("data", (chunk) => {
  chunks.push(chunk);
  have += chunk.length;
  messages((head, body) => {
    if (waitingForAck) {
      waitingForAck = false;
      if (!head.startsWith("HTTP/1.1 202")) console.error(`The answer was refused: ${body}`);
    } else {
      invoke(head, body);
    }
  });
});
socket.on("close", () => process.exit(0)); // the host is gone
socket.on("error", () => process.exit(1));

function answer(invoked, kind, body) {
  if (invoked.done) return;
  invoked.done = true;
  running = undefined;
  waitingForAck = true;
  socket.ref();
  const target = `${invocation}${invoked.id}/${kind}`;
  if (typeof body === "string") {
    socket.write(post(target, body, invoked.extra) + NEXT);
    return;
  }
  socket.cork();
  socket.write(postHead(target, body.length, invoked.extra));
  socket.write(body);
  socket.write(NEXT);
  socket.uncork();
}

function succeed(invoked, result) {
  if (invoked.done) return;
  let body;
  try {
    body = JSON.stringify(result === undefined ? null : result);
    if (body === undefined) body = "null"; // a function or a symbol
  } catch {
    return fail(invoked, new Error("Unable to stringify response body"));
  }
  answer(invoked, "response", body);
}

function fail(invoked, error) {
  if (invoked.done) return;
  const body = stringify(error);
  console.error("Invoke Error", body);
  answer(invoked, "error", body);
}

class Context {
  constructor(invoked, head) {
    this.callbackWaitsForEmptyEventLoop = true;
    this.functionVersion = env.AWS_LAMBDA_FUNCTION_VERSION;
    this.functionName = env.AWS_LAMBDA_FUNCTION_NAME;
    this.memoryLimitInMB = env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE;
    this.logGroupName = env.AWS_LAMBDA_LOG_GROUP_NAME;
    this.logStreamName = env.AWS_LAMBDA_LOG_STREAM_NAME;
    this.invokedFunctionArn = headers["invoked-function-arn"].exec(head)?.[1];
    this.awsRequestId = invoked.id;
    const clientContext = headers["client-context"].exec(head)?.[1];
    this.clientContext = clientContext ? JSON.parse(clientContext) : undefined;
    const identity = headers["cognito-identity"].exec(head)?.[1];
    this.identity = identity ? JSON.parse(identity) : undefined;
    Object.defineProperty(this, "getRemainingTimeInMillis", {
      value: () => Math.max(invoked.deadline - Date.now(), 0),
      enumerable: true,
    });
    // Of old: ways to end an invocation without a callback.
    Object.defineProperty(this, "done", { value: (error, result) => finish(invoked, this, error, result, true) });
    Object.defineProperty(this, "succeed", { value: (result) => finish(invoked, this, null, result, true) });
    Object.defineProperty(this, "fail", { value: (error) => finish(invoked, this, error ?? "handled", null, true) });
  }
}

/** A callback's word. With callbackWaitsForEmptyEventLoop it is kept until nothing else is left to do. */
function finish(invoked, context, error, result, atOnce) {
  if (invoked.done || invoked.word) return;
  const say = () => (error !== undefined && error !== null ? fail(invoked, error) : succeed(invoked, result));
  invoked.word = say;
  if (atOnce || !context.callbackWaitsForEmptyEventLoop || (error !== undefined && error !== null)) setImmediate(say);
}

function invoke(head, body) {
  const id = headers["aws-request-id"].exec(head)[1];
  const attempt = headers["invocation-id"].exec(head)?.[1];
  const invoked = {
    id,
    deadline: Number(headers["deadline-ms"].exec(head)?.[1] ?? 0),
    extra: attempt ? `Lambda-Runtime-Invocation-Id: ${attempt}\r\n` : "",
    done: false,
    word: undefined,
  };
  running = invoked;
  currentId = id;
  const trace = headers["trace-id"].exec(head)?.[1];
  if (trace) env._X_AMZN_TRACE_ID = trace;
  // While the handler works, our connection does not keep the event loop busy: its end is how a callback's
  // "nothing left to do" is seen.
  socket.unref();
  try {
    const context = new Context(invoked, head);
    if (handler[STREAMING]) {
      invokeStreaming(invoked, JSON.parse(body.toString("utf8")), context);
      return;
    }
    const result = handler(JSON.parse(body.toString("utf8")), context, (error, value) =>
      finish(invoked, context, error, value, false),
    );
    if (result !== null && typeof result === "object" && typeof result.then === "function") {
      result.then(
        (value) => succeed(invoked, value),
        (error) => fail(invoked, error),
      );
    } else if (handler.length < 3 && !invoked.word && result !== undefined) {
      // A plain value of a handler that takes no callback. AWS ignores it and answers null; so would its users learn.
      invoked.word = () => succeed(invoked, null);
    }
  } catch (error) {
    fail(invoked, error);
  }
}

// Nothing is left in the event loop: a callback's word is given now; without one the answer is null, as on AWS.
process.on("beforeExit", () => {
  const invoked = running;
  if (!invoked) return;
  if (invoked.word) invoked.word();
  else succeed(invoked, null);
});

function die(error, kind) {
  const body = stringify(error);
  console.error(kind, body);
  const invoked = running;
  if (!invoked || invoked.done) process.exit(129);
  invoked.done = true;
  socket.ref();
  socket.removeAllListeners("close");
  socket.end(post(`${invocation}${invoked.id}/error`, body, invoked.extra), () => process.exit(129));
}

function failToStart(error) {
  const body = stringify(error);
  console.error("Init Error", body);
  const kind = error instanceof Fault ? error.name : `Runtime.${describe(error).errorType}`;
  socket.removeAllListeners("close");
  // Ended when the host has answered.
  socket.removeAllListeners("data");
  socket.on("data", () => process.exit(129));
  socket.ref();
  socket.write(
    post("/2018-06-01/runtime/init/error", body, `Lambda-Runtime-Function-Error-Type: ${kind.replace(/[^\x21-\x7e]/g, "")}\r\n`),
  );
}

process.on("uncaughtException", (error) => (handler ? die(error, "Uncaught Exception") : failToStart(error)));
process.on("unhandledRejection", (reason) => {
  const fault = new Fault("Runtime.UnhandledPromiseRejection", String(reason));
  if (reason instanceof Error) fault.stack = reason.stack;
  if (handler) die(fault, "Unhandled Promise Rejection");
  else failToStart(fault);
});

const name = process.argv[2] || env._HANDLER || "";
process.argv.length = 1;
findHandler(name).then(
  (found) => {
    handler = found;
    socket.write(NEXT);
  },
  failToStart,
);
