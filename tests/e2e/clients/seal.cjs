// libolm: {public_key, message: string} -> {ciphertext, mac, ephemeral}
'use strict';

const { run } = require('./json_driver.cjs');
const Olm = require('@matrix-org/olm');

run(async ({ public_key: publicKey, message }) => {
    await Olm.init();
    const encryption = new Olm.PkEncryption();
    encryption.set_recipient_key(publicKey);
    const { ciphertext, mac, ephemeral } = encryption.encrypt(message);
    return { ciphertext, mac, ephemeral };
});
