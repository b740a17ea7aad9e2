// Room events to Apache Kafka itself, read back with kafkajs: the replaced service's environment and messages, and a
// broker that is killed, hangs and comes back while calls begin and end. Run with `node --test suite.mjs`, after
// `npm ci`; needs java and mvn.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';

import { Kafka, logLevel } from 'kafkajs';

import { Broker, PASSWORD, USER } from './broker.mjs';
import { Server } from './server.mjs';

const [CHAT, ROOMS] = ['emit_to_chat', 'ringcast_rooms'];
const PATIENCE_MS = 90_000;
/** Between two looks at a condition. */
const LOOK_MS = 100;

let broker;
const spool = mkdtempSync(join(tmpdir(), 'ringcast-spool-'));

const environment = () => ({
  KAFKA_HOST: '127.0.0.1',
  KAFKA_EXTERNAL_PORT: String(broker.saslPort),
  KAFKA_CLIENT_USERS: USER,
  KAFKA_USER_PASSWORD: PASSWORD,
  KAFKA_IS_CONNECT: 'true',
  KAFKA_ROOM_EVENTS_TOPIC: ROOMS,
  RINGCAST_SPOOL_DIR: spool,
});

async function until(what, holds) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `waited for ${what}; the broker said:\n${broker.log.join('\n')}`);
    await pause(LOOK_MS);
  }
}

const client = () => new Kafka({
  clientId: 'reader',
  brokers: [`127.0.0.1:${broker.openPort}`],
  logLevel: logLevel.NOTHING,
  retry: { initialRetryTime: 200, maxRetryTime: 1000, retries: 100 },
});

async function makeTopics() {
  const admin = client().admin();
  await admin.connect();
  await admin.createTopics({ topics: [CHAT, ROOMS].map((topic) => ({ topic, numPartitions: 3 })), waitForLeaders: true });
  await admin.disconnect();
}

/** Everything in both topics, from the beginning, until `enough` says so of it. */
async function readAll(what, enough) {
  // It leaves only once the last question for messages is answered.
  const consumer = client().consumer({ groupId: `reader-${Date.now()}`, maxWaitTimeInMs: LOOK_MS });
  const read = { [CHAT]: [], [ROOMS]: [] };
  await consumer.connect();
  await consumer.subscribe({ topics: [CHAT, ROOMS], fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ topic, partition, message }) => {
      const { key, value, headers } = message;
      read[topic].push({
        room: key.toString(), partition, id: headers['ringcast-id'].toString(), value: JSON.parse(value.toString()),
      });
    },
  });
  await until(what, () => enough(read));
  await consumer.disconnect();
  return read;
}

/** The first appearance of each message, by room. */
function byRoom(messages) {
  const rooms = new Map();
  for (const message of messages) {
    const known = rooms.get(message.room) ?? [];
    if (!known.some(({ id }) => id === message.id)) known.push(message);
    rooms.set(message.room, known);
  }
  return rooms;
}

/** Every room's log is in the topic, whole and in order, and the chat was told of each call in its words. */
function assertTold(read, calls) {
  const [rooms, chat] = [byRoom(read[ROOMS]), byRoom(read[CHAT])];
  for (const [room, log] of calls) {
    assert.deepEqual(rooms.get(room).map(({ value }) => value), log, room);
    assert.equal(new Set(read[ROOMS].filter((message) => message.room === room).map(({ partition }) => partition)).size, 1);
    const told = (event, data) => ({ to: room, event, data: { success: true, data: { roomId: room, ...data } } });
    assert.deepEqual(chat.get(room).map(({ value }) => value), [
      told('video_call_started', { initiatorId: 'alice' }),
      told('video_call_joined', { peerId: 'alice' }),
      told('video_call_joined', { peerId: 'bob' }),
      told('video_call_left', { peerId: 'alice' }),
      told('video_call_left', { peerId: 'bob' }),
      told('video_call_ended', { peerId: 'bob' }),
    ], room);
  }
}

const holdsAll = (calls) => (read) => {
  const [rooms, chat] = [byRoom(read[ROOMS]), byRoom(read[CHAT])];
  return [...calls].every(([room, log]) => rooms.get(room)?.length >= log.length && chat.get(room)?.length >= 6);
};

before(async () => {
  broker = await Broker.start();
  await makeTopics();
});

after(async () => {
  await broker?.stop();
  rmSync(spool, { recursive: true, force: true });
});

test('the replaced service\'s environment and messages, over SASL/PLAIN, and calls while the broker dies and hangs', async () => {
  const server = await Server.start(environment());
  const calls = new Map();
  const call = async (room) => calls.set(room, await server.call(room));
  await call('tea');
  assertTold(await readAll('the first call', holdsAll(calls)), calls);

  await broker.kill();
  for (let number = 0; number < 10; number += 1) await call(`killed-${number}`);
  broker.restart();
  for (let number = 0; number < 5; number += 1) await call(`restarted-${number}`);
  await until('delivery after the restart', async () => await server.metric('kafka_waiting') === 0);

  broker.hang();
  for (let number = 0; number < 10; number += 1) await call(`hung-${number}`);
  assert.ok(await server.metric('kafka_waiting') > 0, 'nothing is acknowledged by a broker that hangs');
  broker.resume();
  await call('resumed');
  assertTold(await readAll('all calls', holdsAll(calls)), calls);
  await until('the last acknowledgement', async () => await server.metric('kafka_waiting') === 0);
  assert.equal(await server.metric('kafka_accepted_total'), await server.metric('kafka_delivered_total'));
  for (const name of ['failed', 'lost', 'refused']) assert.equal(await server.metric(`kafka_${name}_total`), 0, name);

  // What is left at the end is told by the next process.
  await broker.kill();
  await call('last');
  assert.equal(await server.stop(), 0);
  broker.restart();
  const heir = await Server.start(environment());
  assertTold(await readAll('the last call', holdsAll(calls)), calls);
  assert.equal(await heir.stop(), 0);
  assert.ok(!server.log.join('\n').includes(PASSWORD));
});

test('events over TLS, with a password that is proven and not told', async () => {
  const server = await Server.start({
    RINGCAST_KAFKA_BROKERS: `localhost:${broker.tlsPort}`,
    RINGCAST_KAFKA_TLS: 'true',
    RINGCAST_KAFKA_CA: broker.ca,
    RINGCAST_KAFKA_MECHANISM: 'SCRAM-SHA-512',
    RINGCAST_KAFKA_USER: USER,
    RINGCAST_KAFKA_PASSWORD: PASSWORD,
    RINGCAST_KAFKA_ROOM_EVENTS_TOPIC: ROOMS,
  });
  const calls = new Map([['secured', await server.call('secured')]]);
  assertTold(await readAll('a call over TLS', holdsAll(calls)), calls);
  assert.equal(await server.stop(), 0);
});

test('a wrong password keeps events waiting and calls going, and is not logged', async () => {
  const wrong = 'open barley';
  const server = await Server.start({ ...environment(), KAFKA_USER_PASSWORD: wrong });
  await server.call('refused');
  await until('a line about it', () => server.log.some((line) => line.includes('no Kafka broker can be reached')));
  assert.equal(await server.metric('kafka_up'), 0);
  assert.equal(await server.metric('kafka_lost_total'), 0);
  assert.equal(await server.stop(), 0);
  assert.ok(!server.log.join('\n').includes(wrong));
});
