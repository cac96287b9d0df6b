// People who write by @mattermost/client, unchanged. Each line of the input is a call, each line of the output its answer:
//
//   {"as": "anna", "call": "createPost", "args": [{"channel_id": "...", "message": "..."}]}  -->  {"answer": {...}}
//                                                                                             -->  {"error": "..."}
//
// Whoever is named first gets a client of their own, signed out. `uploadFile` takes the channel, a name and the path of a file.
// tests/system/microsoft365/writers.rs starts this with HOLDFAST_EDGE_URL and HOLDFAST_NODE_MODULES.

import {readFile} from 'node:fs/promises';
import {createInterface} from 'node:readline';

import {form, signedOut} from './cast.mjs';

const people = new Map();

for await (const line of createInterface({input: process.stdin})) {
    const {as, call, args} = JSON.parse(line);
    if (!people.has(as)) {
        people.set(as, signedOut());
    }
    console.log(JSON.stringify(await answer(people.get(as), call, args)));
}

async function answer(client, call, args) {
    try {
        return {answer: await (call === 'uploadFile' ? upload(client, ...args) : client[call](...args))};
    } catch (error) {
        return {error: `${call}: ${error.status_code ?? ''} ${error.message}`};
    }
}

async function upload(client, channel, name, path) {
    return client.uploadFile(form({channel_id: channel}, {files: [name, await readFile(path)]}));
}
