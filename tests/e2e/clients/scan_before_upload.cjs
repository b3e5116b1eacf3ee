// docs/examples/scan-before-upload.ts, compiled: {module: path, servers, data: base64} -> {file} or {refused}
'use strict';

const { run } = require('./json_driver.cjs');

run(async ({ module, servers, data }) => {
    const { scanAndUpload, Refused } = require(module);
    try {
        return { file: await scanAndUpload(servers, Buffer.from(data, 'base64')) };
    } catch (problem) {
        if (problem instanceof Refused) return { refused: problem.message };
        throw problem;
    }
});
