// Asks a server for its health with grpc-js, by a unary call and by the first answer of a stream, and prints both.
// Usage: node health.mjs [--ca FILE] HOST:PORT
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Client, credentials } from '@grpc/grpc-js';

const args = parseArgs({ options: { ca: { type: 'string' } }, allowPositionals: true });
const creds = args.values.ca ? credentials.createSsl(readFileSync(args.values.ca)) : credentials.createInsecure();
const client = new Client(args.positionals[0], creds);
const deadline = Date.now() + 10_000;

// Of HealthCheckRequest and HealthCheckResponse no more is needed than: empty stands for the whole server, and field 1
// is the status.
const empty = Buffer.alloc(0);
const serialize = (message) => message;
const status = (message) => (message.equals(Buffer.from([8, 1])) ? 'SERVING' : message.toString('hex'));

const check = await new Promise((resolve, reject) => {
  client.makeUnaryRequest('/grpc.health.v1.Health/Check', serialize, status, empty, { deadline }, (err, response) =>
    err ? reject(err) : resolve(response),
  );
});
console.log('Check', check);

const call = client.makeServerStreamRequest('/grpc.health.v1.Health/Watch', serialize, status, empty, { deadline });
for await (const response of call) {
  console.log('Watch', response);
  break;
}
call.cancel();
client.close();
