// To which endpoints the methods of the client lead: each is called with every kind of argument, and nothing is sent.

import assert from 'node:assert/strict';

import {keep, signedOut} from './cast.mjs';

const ANY = 'x'.repeat(26);
const MANY = 12;
const object = {id: ANY, user_id: ANY, channel_id: ANY, team_id: ANY, post_id: ANY};

// All texts, all objects, and texts with an empty one or a false at each place: some methods choose their path by that.
const ways = [Array(MANY).fill(ANY), Array(MANY).fill(object)];
for (const other of ['', false, object]) {
    for (let at = 0; at < MANY; at++) {
        ways.push(Array(MANY).fill(ANY).with(at, other));
    }
}

export async function offers() {
    const client = signedOut();
    const seen = new Set();
    const note = (method, url) => seen.add(`${method.toUpperCase()} ${new URL(url).pathname}`);
    const really = globalThis.fetch;
    globalThis.fetch = async (url, options) => {
        note(options?.method ?? 'get', url);
        return new Response('{}', {status: 200, headers: {'content-type': 'application/json'}});
    };
    try {
        const names = [...Object.keys(client), ...Object.getOwnPropertyNames(Object.getPrototypeOf(client))];
        const methods = names.filter((name) => typeof client[name] === 'function' &&
            !/^(constructor|set|remove(Header)?$|doFetch|get\w*Routes?$)/.test(name));
        for (const name of methods) {
            for (const way of ways) {
                try {
                    const answer = await client[name](...way);
                    if (name.endsWith('Url') && URL.canParse(answer)) {
                        note('get', answer);
                    }
                } catch {
                    // It wanted other arguments; one of the ways fits.
                }
            }
        }
    } finally {
        globalThis.fetch = really;
    }
    assert.ok(seen.size > 400, `only ${seen.size} endpoints: the client is built differently than thought`);
    [...seen].sort().forEach((endpoint) => keep({offers: endpoint}));
}
