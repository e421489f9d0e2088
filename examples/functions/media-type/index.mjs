// Answers, for every object of a job: its media type, told from its first bytes and not from its name.
//
// Try it on a folder, without a server:
//
//     longshore run examples/functions/media-type/index.mjs --source .
//
// An ordinary Lambda function for S3 Batch Operations (invocation schema 1.0 and 2.0). It needs nothing but Node's
// standard library, and it runs on AWS as it is: the credentials, the region and, where there is one, the endpoint
// (AWS_ENDPOINT_URL_S3) come from its environment, as they do for the AWS SDK.

import { createHash, createHmac } from "node:crypto";
import http from "node:http";
import https from "node:https";

const FIRST_BYTES = 4096;
const TIMEOUT_MS = 30_000;

export async function handler(event) {
  const task = event.tasks[0]; // S3 Batch Operations sends one task an invocation
  const bucket = task.s3Bucket ?? task.s3BucketArn.split(":::")[1]; // schema 2.0, schema 1.0
  const key = decodeURIComponent(task.s3Key.replaceAll("+", " ")); // keys arrive URL-encoded
  let resultCode = "Succeeded";
  let resultString;
  try {
    const { start, size } = await readStart(bucket, key, task.s3VersionId);
    resultString = JSON.stringify({ type: mediaType(start), bytes: size });
  } catch (error) {
    if (!(error instanceof S3Error)) throw error;
    resultCode = error.worthAnotherTry ? "TemporaryFailure" : "PermanentFailure";
    resultString = error.message;
  }
  return {
    invocationSchemaVersion: event.invocationSchemaVersion,
    treatMissingKeysAs: "PermanentFailure",
    invocationId: event.invocationId,
    results: [{ taskId: task.taskId, resultCode, resultString }],
  };
}

// Where a signature begins, the signature, and what it stands for.
const SIGNATURES = [
  [0, Buffer.from("89504e470d0a1a0a", "hex"), "image/png"],
  [0, Buffer.from("ffd8ff", "hex"), "image/jpeg"],
  [0, Buffer.from("GIF8"), "image/gif"],
  [8, Buffer.from("WEBP"), "image/webp"],
  [8, Buffer.from("WAVE"), "audio/wav"],
  [4, Buffer.from("ftyp"), "video/mp4"],
  [0, Buffer.from("%PDF-"), "application/pdf"],
  [0, Buffer.from("504b0304", "hex"), "application/zip"],
  [0, Buffer.from("1f8b", "hex"), "application/gzip"],
  [0, Buffer.from("28b52ffd", "hex"), "application/zstd"],
  [0, Buffer.from("PAR1"), "application/vnd.apache.parquet"],
  [0, Buffer.from("SQLite format 3\0"), "application/vnd.sqlite3"],
  [0, Buffer.from("7f454c46", "hex"), "application/x-elf"],
  [0, Buffer.from("<?xml"), "application/xml"],
  [0, Buffer.from("<!DOCTYPE html"), "text/html"],
  [0, Buffer.from("#!"), "text/x-script"],
];

function mediaType(start) {
  if (start.length === 0) return "application/x-empty";
  for (const [offset, signature, type] of SIGNATURES) {
    if (start.subarray(offset, offset + signature.length).equals(signature)) return type;
  }
  if (start.includes(0)) return "application/octet-stream";
  try {
    // `stream`: a character cut in two by the end of what was read is no error.
    new TextDecoder("utf-8", { fatal: true }).decode(start, { stream: true });
    return "text/plain";
  } catch {
    return "application/octet-stream";
  }
}

// --- S3 in a few lines: the start of an object, signed with AWS Signature Version 4 ---

class S3Error extends Error {
  constructor(sentence, worthAnotherTry) {
    super(sentence);
    this.worthAnotherTry = worthAnotherTry;
  }
}

// Connections are kept between invocations: a function that stays warm connects once.
const agents = { "http:": new http.Agent({ keepAlive: true }), "https:": new https.Agent({ keepAlive: true }) };

async function readStart(bucket, key, versionId) {
  const region = process.env.AWS_REGION ?? "us-east-1";
  const endpoint = new URL(process.env.AWS_ENDPOINT_URL_S3 || `https://s3.${region}.amazonaws.com`);
  const path = endpoint.pathname.replace(/\/$/, "") + "/" + encode(bucket) + "/" + key.split("/").map(encode).join("/");
  const query = versionId ? "versionId=" + encode(versionId) : "";
  const { status, headers, body } = await get(endpoint, path, query, region);
  if (status === 416) return { start: Buffer.alloc(0), size: 0 }; // no first byte: the object is empty
  if (status === 200 || status === 206) {
    const size = Number(headers["content-range"]?.split("/")[1] ?? headers["content-length"]);
    return { start: body.subarray(0, FIRST_BYTES), size };
  }
  const reason = /<Code>([^<]*)/.exec(body.toString())?.[1] ?? http.STATUS_CODES[status];
  if (status === 404) throw new S3Error(`There is no object "${key}" in the bucket "${bucket}" (${reason}).`, false);
  throw new S3Error(`S3 refused to hand out ${bucket}/${key}: ${status} ${reason}.`, status >= 500 || status === 429);
}

function get(endpoint, path, query, region, mayRepeat = true) {
  return new Promise((resolve, reject) => {
    const headers = signedHeaders(endpoint.host, path, query, region);
    headers.range = `bytes=0-${FIRST_BYTES - 1}`;
    const request = (endpoint.protocol === "https:" ? https : http).request(
      {
        agent: agents[endpoint.protocol],
        hostname: endpoint.hostname,
        port: endpoint.port,
        path: path + (query && "?" + query),
        headers,
        timeout: TIMEOUT_MS,
      },
      (response) => {
        const pieces = [];
        response.on("data", (piece) => pieces.push(piece));
        response.on("error", fail);
        response.on("end", () =>
          resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(pieces) }),
        );
      },
    );
    request.on("timeout", () => request.destroy(new Error(`no answer for ${TIMEOUT_MS / 1000} s`)));
    request.on("error", fail);
    request.end();

    function fail(error) {
      // A kept connection may have been closed meanwhile: that alone is no failure.
      if (request.reusedSocket && mayRepeat) get(endpoint, path, query, region, false).then(resolve, reject);
      else reject(new S3Error(`${endpoint.host} could not be reached: ${error.message}.`, true));
    }
  });
}

// The steps are those of AWS's page "Create a signed AWS API request".
function signedHeaders(host, path, query, region) {
  const now = new Date().toISOString().replace(/[-:]|\.\d+/g, "");
  const headers = { host, "x-amz-content-sha256": sha256(""), "x-amz-date": now };
  if (process.env.AWS_SESSION_TOKEN) headers["x-amz-security-token"] = process.env.AWS_SESSION_TOKEN;
  const names = Object.keys(headers).sort();
  const lines = names.map((name) => `${name}:${headers[name]}\n`).join("");
  const request = ["GET", path, query, lines, names.join(";"), headers["x-amz-content-sha256"]].join("\n");
  const scope = `${now.slice(0, 8)}/${region}/s3/aws4_request`;
  const toSign = ["AWS4-HMAC-SHA256", now, scope, sha256(request)].join("\n");
  const signature = [now.slice(0, 8), region, "s3", "aws4_request", toSign].reduce(
    (key, part) => createHmac("sha256", key).update(part).digest(),
    "AWS4" + process.env.AWS_SECRET_ACCESS_KEY,
  );
  const credential = `${process.env.AWS_ACCESS_KEY_ID}/${scope}`;
  headers.authorization =
    `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=${names.join(";")}, ` +
    `Signature=${signature.toString("hex")}`;
  return headers;
}

function sha256(text) {
  return createHash("sha256").update(text).digest("hex");
}

// encodeURIComponent leaves these five alone; S3's rule encodes them.
function encode(text) {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => "%" + c.charCodeAt(0).toString(16).toUpperCase());
}
