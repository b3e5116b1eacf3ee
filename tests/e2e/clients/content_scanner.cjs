// MatrixContentScannerClient of the bot SDK: {url, token, method, argument} -> {result, body?} or {error}
// `body` is what a download received, in base64: downloadEncryptedContent itself resolves to undefined (it
// reads `data` of a response that has `body`).
'use strict';

const Module = require('node:module');
const { run } = require('./json_driver.cjs');

// The package's index loads this native module, which needs a download; the scanner client does not use it.
const NATIVE_CRYPTO = '@matrix-org/matrix-sdk-crypto-nodejs';
const load = Module._load;
Module._load = (request, ...rest) => (request === NATIVE_CRYPTO ? {} : load(request, ...rest));

const sdk = require('@vector-im/matrix-bot-sdk');
const { MatrixContentScannerClient, MatrixContentScannerError } =
    require('@vector-im/matrix-bot-sdk/lib/MatrixContentScannerClient');

sdk.LogService.muteModule('MatrixHttpClient');

// Keeps the last raw answer beside what the client makes of it.
class RecordingClient extends sdk.MatrixClient {
    async doRequest(...request) {
        this.answer = await super.doRequest(...request);
        return this.answer;
    }
}

function asJson(result) {
    return Buffer.isBuffer(result?.data) ? { ...result, data: result.data.toString('base64') } : result;
}

// Of downloads the client does not parse the error's body: it throws the response as it is.
function asError(problem) {
    if (problem instanceof MatrixContentScannerError) {
        return { type: 'MatrixContentScannerError', ...problem.body };
    }
    if (problem.statusCode === undefined) throw problem;
    return { type: 'response', status: problem.statusCode, ...JSON.parse(problem.body) };
}

run(async ({ url, token, method, argument }) => {
    const client = new RecordingClient(url, token);
    try {
        const result = await new MatrixContentScannerClient(client)[method](argument);
        return { result: asJson(result), body: client.answer.body?.toString('base64') };
    } catch (problem) {
        return { error: asError(problem) };
    }
});
