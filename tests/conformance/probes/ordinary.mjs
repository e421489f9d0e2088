// What an ordinary Node function does, and has to be able to do inside the sandbox. The answer is a table
// {thing: "ok" or what went wrong}.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { lookup } from 'node:dns/promises';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, get } from 'node:http';
import { cpus, networkInterfaces, tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';

const check = (good, words) => { if (!good) throw new Error(words); };

const things = {
  async subprocesses() {
    const { stdout } = await promisify(execFile)('sh', ['-c', 'echo $((6 * 7))']);
    check(stdout === '42\n', stdout);
  },
  async workers() {
    const worker = new Worker("require('node:worker_threads').parentPort.postMessage(42)", { eval: true });
    check(await new Promise((done, failed) => worker.once('message', done).once('error', failed)) === 42, 'no answer');
  },
  async temporary() {
    const folder = await mkdtemp(join(tmpdir(), 'node-'));
    await writeFile(join(folder, 'x'), 'x'.repeat(1 << 20));
    check((await readFile(join(folder, 'x'))).length === 1 << 20, 'another length');
    await rm(folder, { recursive: true });
  },
  async serverInside() {
    const server = createServer((_, answer) => answer.end('inside'));
    await new Promise(done => server.listen(0, '127.0.0.1', done));
    const said = await new Promise((done, failed) => get({ port: server.address().port, host: '127.0.0.1' }, answer => {
      let text = '';
      answer.on('data', part => { text += part; }).on('end', () => done(text));
    }).on('error', failed));
    server.close();
    check(said === 'inside', said);
  },
  async s3() {
    // The S3 door signs nothing itself: an unsigned request is refused, in S3's own words. That it answers counts here.
    const url = process.env.AWS_ENDPOINT_URL_S3;
    const answer = await fetch(url);
    check((await answer.text()).includes('<Error>') || answer.ok, `status ${answer.status}`);
  },
  async localNames() { check((await lookup('localhost', { family: 4 })).address === '127.0.0.1', 'another address'); },
  async names(event) { if (event.names) check((await lookup('probe.test', { family: 4 })).address === '192.0.2.7', 'another address'); },
  async machine() {
    check(cpus().length >= 1, 'no processors');
    networkInterfaces();
    check(userInfo().username.length > 0, 'the user has no name');
  },
  async hashes() { check(createHash('sha256').update('x').digest('hex').startsWith('2d711642'), 'another hash'); },
  async timers() { await new Promise(done => setTimeout(done, 5)); },
};

export const handler = async event => {
  const table = {};
  for (const [name, thing] of Object.entries(things)) {
    try {
      await thing(event);
      table[name] = 'ok';
    } catch (error) {
      table[name] = String(error);
    }
  }
  return table;
};
