// matrix-encrypt-attachment: {operation, path: "node" | "webcrypto", data: base64, info?} -> {data: base64, info?}
'use strict';

const { webcrypto } = require('node:crypto');
const { run } = require('./json_driver.cjs');

run(async ({ operation, path, data, info }) => {
    if (path === 'webcrypto') {
        // The library chooses its path by what it finds when it is loaded: this is how a browser looks.
        globalThis.window = { crypto: webcrypto, btoa, atob };
    }
    const library = require('matrix-encrypt-attachment');
    const bytes = new Uint8Array(Buffer.from(data, 'base64')).buffer;
    if (operation === 'decrypt') {
        return { data: Buffer.from(await library.decryptAttachment(bytes, info)).toString('base64') };
    }
    const encrypted = await library.encryptAttachment(bytes);
    return { data: Buffer.from(encrypted.data).toString('base64'), info: encrypted.info };
});
