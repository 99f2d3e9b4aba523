// Sends one request with Node's own HTTP/2 client and prints the content of the response.
// Usage: node get.mjs URL
import { connect } from 'node:http2';

const url = new URL(process.argv[2]);
const session = connect(url.origin);
const request = session.request({ ':path': url.pathname });
request.setEncoding('utf8');
for await (const chunk of request) {
  process.stdout.write(chunk);
}
session.close();
