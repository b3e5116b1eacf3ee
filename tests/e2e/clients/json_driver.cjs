// Every driver reads one JSON value from stdin and prints one: `run` does both around its work.
'use strict';

const { readFileSync } = require('node:fs');

function run(work) {
    // Libraries log to the console; stdout is for the answer alone.
    console.log = console.info = console.debug = console.error;
    work(JSON.parse(readFileSync(0, 'utf8'))).then(
        (answer) => process.stdout.write(JSON.stringify(answer), () => process.exit(0)),
        (problem) => { console.error(problem); process.exit(1); },
    );
}

module.exports = { run };
