// Apache Kafka as one process on loopback: a broker and its controller (KRaft), an open listener for the reader, and for
// the server under test one with SASL/PLAIN and one with SCRAM over TLS. Its jars come from Maven Central (pom.xml), once.

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { freePort } from './server.mjs';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const JARS = fileURLToPath(new URL('../../target/kafka/jars', import.meta.url));
// Maven's own store; it would be in the home directory.
const STORE = fileURLToPath(new URL('../../target/kafka/maven', import.meta.url));
export const USER = 'calls';
export const PASSWORD = 'open sesame';
/** A mirror may be away for a moment. */
const FETCHES_MAX = 3;
const LOG_LINES_MAX = 40;
const STORE_PASSWORD = 'of a folder that goes';

function fetchJars() {
  const stamp = join(JARS, 'complete');
  if (existsSync(stamp)) return;
  mkdirSync(JARS, { recursive: true });
  const goal = ['dependency:copy-dependencies', '-DincludeScope=runtime', `-DoutputDirectory=${JARS}`];
  goal.push(`-Dmaven.repo.local=${STORE}`);
  const words = ['--batch-mode', '--quiet', '--no-transfer-progress', '--file', join(HERE, 'pom.xml'), ...goal];
  for (let attempt = 1; ; attempt += 1) {
    // What is there is not fetched again.
    const { status } = spawnSync('mvn', words, { stdio: ['ignore', 'inherit', 'inherit'] });
    if (status === 0) break;
    if (attempt === FETCHES_MAX) throw new Error(`mvn has failed ${attempt} times`);
  }
  writeFileSync(stamp, '');
}

export class Broker {
  #process;
  #folder = mkdtempSync(join(tmpdir(), 'ringcast-kafka-'));
  #settings = join(this.#folder, 'server.properties');
  #keys = join(this.#folder, 'keys.p12');
  /** The last lines of its log. */
  log = [];
  /** What its certificate is trusted by. */
  ca = join(this.#folder, 'ca.pem');

  static async start() {
    fetchJars();
    const broker = new Broker();
    for (const port of ['openPort', 'saslPort', 'tlsPort', 'controllerPort']) broker[port] = await freePort();
    broker.#certify();
    broker.#configure();
    const format = ['kafka.tools.StorageTool', 'format', '--standalone', '--cluster-id', 'MkU3OEVBNTcwNTJENDM2Qg'];
    format.push('--add-scram', `SCRAM-SHA-512=[name="${USER}",password="${PASSWORD}"]`);
    execFileSync('java', [...broker.#java(), ...format, '--config', broker.#settings], { stdio: ['ignore', 'pipe', 'pipe'] });
    broker.restart();
    return broker;
  }

  #java() {
    return ['-Xmx384m', '-XX:TieredStopAtLevel=1', '-cp', join(JARS, '*')];
  }

  /** A certificate for localhost that is its own root. */
  #certify() {
    const store = ['-keystore', this.#keys, '-storetype', 'PKCS12', '-storepass', STORE_PASSWORD, '-alias', 'broker'];
    const keytool = (...args) => execFileSync('keytool', [...args, ...store], { stdio: ['ignore', 'pipe', 'pipe'] });
    keytool('-genkeypair', '-keyalg', 'EC', '-groupname', 'secp256r1', '-dname', 'CN=localhost', '-ext', 'san=dns:localhost');
    keytool('-exportcert', '-rfc', '-file', this.ca);
  }

  #configure() {
    const at = (name, port) => `${name}://127.0.0.1:${port}`;
    const listeners = [at('OPEN', this.openPort), at('SASL', this.saslPort), at('TLS', this.tlsPort)];
    const login = `org.apache.kafka.common.security.plain.PlainLoginModule required user_${USER}="${PASSWORD}";`;
    writeFileSync(this.#settings, [
      'process.roles=broker,controller',
      'node.id=1',
      `listeners=${[...listeners, at('CONTROLLER', this.controllerPort)]}`,
      `advertised.listeners=${listeners.slice(0, 2)},TLS://localhost:${this.tlsPort}`,
      'controller.listener.names=CONTROLLER',
      'inter.broker.listener.name=OPEN',
      'listener.security.protocol.map=OPEN:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SASL_SSL,CONTROLLER:PLAINTEXT',
      'listener.name.sasl.sasl.enabled.mechanisms=PLAIN',
      'listener.name.tls.sasl.enabled.mechanisms=SCRAM-SHA-512',
      `listener.name.sasl.plain.sasl.jaas.config=${login}`,
      'listener.name.tls.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;',
      'listener.name.tls.ssl.keystore.type=PKCS12',
      `listener.name.tls.ssl.keystore.location=${this.#keys}`,
      `listener.name.tls.ssl.keystore.password=${STORE_PASSWORD}`,
      `controller.quorum.bootstrap.servers=127.0.0.1:${this.controllerPort}`,
      `log.dirs=${join(this.#folder, 'logs')}`,
      'num.partitions=3',
      'offsets.topic.num.partitions=1',
      'offsets.topic.replication.factor=1',
      'group.initial.rebalance.delay.ms=0',
      // The server compresses with LZ4, which the reader does not know.
      'compression.type=uncompressed',
    ].join('\n'));
  }

  /** Begins the process; clients try until it answers. */
  restart() {
    this.#process = spawn('java', [...this.#java(), 'kafka.Kafka', this.#settings], { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        this.log.push(line);
        this.log.splice(0, this.log.length - LOG_LINES_MAX);
      });
    }
  }

  /** Ends it as a power cut would. */
  async kill() {
    const ended = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await ended;
  }

  /** Its connections stay, and nothing is answered until `resume`. */
  hang() {
    this.#process.kill('SIGSTOP');
  }

  resume() {
    this.#process.kill('SIGCONT');
  }

  async stop() {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
