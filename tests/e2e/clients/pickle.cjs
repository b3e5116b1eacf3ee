// libolm, as the Node scanner uses it: {pickle_key} -> {pickle, public_key}
'use strict';

const { run } = require('./json_driver.cjs');
const Olm = require('@matrix-org/olm');

run(async ({ pickle_key: pickleKey }) => {
    await Olm.init();
    const decryption = new Olm.PkDecryption();
    const publicKey = decryption.generate_key();
    return { pickle: decryption.pickle(pickleKey), public_key: publicKey };
});
