// Sends one request with Node's own HTTP/2 client and prints the content of the response.
// Usage: node get.mjs [--ca FILE] URL
import { readFileSync } from 'node:fs';
import { connect } from 'node:http2';
import { parseArgs } from 'node:util';

const args = parseArgs({ options: { ca: { type: 'string' } }, allowPositionals: true });
const url = new URL(args.positionals[0]);
const session = connect(url.origin, args.values.ca ? { ca: readFileSync(args.values.ca) } : {});
const request = session.request({ ':path': url.pathname });
request.setEncoding('utf8');
for await (const chunk of request) {
  process.stdout.write(chunk);
}
session.close();
