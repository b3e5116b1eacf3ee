// Encrypt a file as for an encrypted room, have it scanned, and only then upload it.
// Nothing but the platform: fetch, FormData and WebCrypto, in browsers and in node.

const { subtle } = globalThis.crypto;
const TRIES = 4;
const AGAIN_LATER = [408, 429, 502, 503, 504];

/** The `file` of an event; `url` is there once it is uploaded. */
export interface EncryptedFile {
  v: "v2";
  url?: string;
  key: JsonWebKey;
  iv: string;
  hashes: { sha256: string };
}

export interface Servers {
  homeserver: string;
  scanner: string;
  accessToken: string;
}

/** The file must not be sent; the message is for the user. */
export class Refused extends Error {}

/** Ciphertext and `EncryptedFile`: the Matrix spec, "Sending encrypted attachments". */
async function encrypt(plaintext: BufferSource): Promise<[ArrayBuffer, EncryptedFile]> {
  const algorithm = { name: "AES-CTR", length: 256 };
  const key = await subtle.generateKey(algorithm, true, ["encrypt", "decrypt"]);
  const counter = new Uint8Array(16); // its low half must start at 0
  crypto.getRandomValues(counter.subarray(0, 8));
  const ciphertext = await subtle.encrypt({ name: "AES-CTR", counter, length: 64 }, key, plaintext);
  const sha256 = unpadded(await subtle.digest("SHA-256", ciphertext));
  const jwk = await subtle.exportKey("jwk", key);
  return [ciphertext, { v: "v2", key: jwk, iv: unpadded(counter), hashes: { sha256 } }];
}

/** `content` as JSON that the scanner alone can read: Olm's PkEncryption. */
async function seal(content: object, publicKey: string): Promise<Record<string, string>> {
  const raw = Uint8Array.from(atob(publicKey), (character) => character.charCodeAt(0));
  const theirs = await subtle.importKey("raw", raw, "X25519", false, []);
  const ours = (await subtle.generateKey("X25519", true, ["deriveBits"])) as CryptoKeyPair;
  const shared = await subtle.deriveBits({ name: "X25519", public: theirs }, ours.privateKey, 256);
  const hkdf = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(32), info: new Uint8Array() };
  const input = await subtle.importKey("raw", shared, "HKDF", false, ["deriveBits"]);
  const secrets = await subtle.deriveBits(hkdf, input, 640);
  const aes = await subtle.importKey("raw", secrets.slice(0, 32), "AES-CBC", false, ["encrypt"]);
  const hmac = { name: "HMAC", hash: "SHA-256" };
  const mac = await subtle.importKey("raw", secrets.slice(32, 64), hmac, false, ["sign"]);
  const json = new TextEncoder().encode(JSON.stringify(content));
  const nothing = new Uint8Array(); // sic: the MAC shows that it was our key, and no more
  return {
    ephemeral: unpadded(await subtle.exportKey("raw", ours.publicKey)),
    ciphertext: unpadded(await subtle.encrypt({ name: "AES-CBC", iv: secrets.slice(64) }, aes, json)),
    mac: unpadded((await subtle.sign("HMAC", mac, nothing)).slice(0, 8)),
  };
}

/** Resolves if the file may be sent, else throws Refused. Asks again where that helps. */
async function scan(servers: Servers, ciphertext: ArrayBuffer, file: EncryptedFile): Promise<void> {
  const api = `${servers.scanner}/_matrix/media_proxy/unstable`;
  for (let tried = 0; tried < TRIES; tried++) {
    const { public_key } = await (await fetch(`${api}/public_key`)).json();
    const info = JSON.stringify({ encrypted_body: await seal({ file }, public_key) });
    const form = new FormData();
    form.append("file", info);
    form.append("body", new Blob([ciphertext], { type: "application/octet-stream" }));
    const answer = await fetch(`${api}/scan_file`, { method: "POST", headers: authorized(servers), body: form });
    const told = await answer.json().catch(() => ({})); // a proxy's error is a page
    if (answer.status === 200 && told.clean === true) return;
    if (AGAIN_LATER.includes(answer.status)) {
      const seconds = Math.min(30, Number(answer.headers.get("Retry-After") ?? 5));
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    } else if (told.reason !== "MCS_BAD_DECRYPTION") { // the scanner's key changed: seal to the new one
      throw new Refused(told.info ?? `the scanner answered ${answer.status}`);
    }
  }
  throw new Refused("it could not be scanned, try again later");
}

/** The `file` of the event to send. Throws Refused where the file must not be sent. */
export async function scanAndUpload(servers: Servers, plaintext: BufferSource): Promise<EncryptedFile> {
  const [ciphertext, file] = await encrypt(plaintext);
  await scan(servers, ciphertext, file);
  const headers = { ...authorized(servers), "Content-Type": "application/octet-stream" };
  const upload = `${servers.homeserver}/_matrix/media/v3/upload`;
  const answer = await fetch(upload, { method: "POST", headers, body: ciphertext });
  if (!answer.ok) throw new Error(`the homeserver answered ${answer.status}`);
  return { ...file, url: (await answer.json()).content_uri };
}

function authorized(servers: Servers): Record<string, string> {
  return { Authorization: `Bearer ${servers.accessToken}` };
}

/** Base64 as Matrix has it. */
function unpadded(raw: ArrayBuffer | Uint8Array): string {
  return btoa(String.fromCharCode(...new Uint8Array(raw))).replaceAll("=", "");
}
