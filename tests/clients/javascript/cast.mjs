// Who acts in the JavaScript scripts: clients of @mattermost/client, unchanged, whose traffic is kept, and what they hear.

import assert from 'node:assert/strict';
import {appendFileSync} from 'node:fs';
import {createServer} from 'node:http';
import {createRequire} from 'node:module';
import {setTimeout as pause} from 'node:timers/promises';

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/package.json`);
export const {Client4, WebSocketClient} = require('@mattermost/client');
const WebSocket = require('ws');

// What a browser has and this version of Node has not.
globalThis.WebSocket ??= WebSocket;
globalThis.CloseEvent ??= class CloseEvent extends Event {
    constructor(type, init) {
        super(type);
        Object.assign(this, init);
    }
};

export const PASSWORD = 'Correct-Horse-7';
const PATIENCE_MS = 90_000;

// One JSON line for each answer in the file that HOLDFAST_TRAFFIC names, if it does (see ../python/conformance.py).
export const keep = process.env.HOLDFAST_TRAFFIC ?
    (line) => appendFileSync(process.env.HOLDFAST_TRAFFIC, `${JSON.stringify(line)}\n`) : () => {};

const reallyFetch = globalThis.fetch;
globalThis.fetch = async (url, options = {}) => {
    const answer = await reallyFetch(url, options);
    const isJson = answer.headers.get('content-type')?.startsWith('application/json');
    const text = isJson ? await answer.clone().text() : '';
    keep({
        method: (options.method ?? 'get').toUpperCase(),
        path: new URL(url).pathname,
        status: answer.status,
        body: text ? JSON.parse(text) : null,
    });
    return answer;
};

export function signedOut(side = 'EDGE') {
    const client = new Client4();
    client.setUrl(process.env[`HOLDFAST_${side}_URL`]);
    return client;
}

// A client after its login, and who it is.
export async function signedIn(login, password = PASSWORD, side = 'EDGE') {
    const client = signedOut(side);
    const me = await client.login(login, password);
    assert.ok(client.getToken(), 'the login answer carries a Token header');
    return {client, me};
}

export const administrator = (side = 'EDGE') =>
    signedIn(process.env[`HOLDFAST_${side}_ADMIN`], process.env[`HOLDFAST_${side}_PASSWORD`], side);

export const said = (step) => console.log(`ok - javascript: ${step}`);

export function same(what, seen, expected = true) {
    assert.deepEqual(seen, expected, what);
    said(what);
}

// That a call ends with a status and, where one is given, with Mattermost's id of the error.
export async function refused(what, status, call, errorId) {
    await assert.rejects(call, (error) => {
        assert.equal(error.status_code, status, `${what}: ${error.message}`);
        if (errorId) {
            assert.equal(error.server_error_id, errorId, what);
        }
        return true;
    }, `${what} is not refused`);
    said(`${what} is refused`);
}

// Calls `look` until it returns something true.
export async function eventually(what, look, patienceMs = PATIENCE_MS) {
    const deadline = Date.now() + patienceMs;
    let problem;
    for (;;) {
        try {
            const seen = await look();
            if (seen) {
                return seen;
            }
            problem = 'not there yet';
        } catch (error) {
            problem = error.message;
        }
        assert.ok(Date.now() < deadline, `${what}: not within ${patienceMs} ms; ${problem}`);
        await pause(50);
    }
}

// A WebSocketClient of who is signed in, and the events it has seen.
export async function listen(client, side = 'EDGE') {
    const socket = new WebSocketClient({newWebSocketFn: (url) => new WebSocket(url)});
    const events = [];
    let missed = 0;
    socket.addMessageListener((event) => events.push(event));
    socket.addMissedMessageListener(() => missed++);
    const url = process.env[`HOLDFAST_${side}_URL`].replace(/^http/, 'ws');
    socket.initialize(`${url}/api/v4/websocket`, client.getToken());
    // Waits for an event whose data fit, and returns them with the JSON texts in them read.
    const hear = async (kind, fits = () => true) => {
        const found = await eventually(`event ${kind}`,
            () => events.filter((event) => event.event === kind).map(opened).find(fits));
        said(`event ${kind}`);
        return found;
    };
    await hear('hello');
    keep({method: 'GET', path: '/api/v4/websocket', status: 101, body: null});
    const close = () => {
        socket.close();
        assert.equal(missed, 0, 'the reliable WebSocket lost its place');
        const numbers = events.map((event) => event.seq);
        assert.deepEqual(numbers, numbers.map((_, index) => index), 'the event numbers have a gap');
    };
    return {hear, close, socket};
}

// An event's data; what is JSON in a string is read.
function opened(event) {
    return Object.fromEntries(Object.entries(event.data ?? {}).map(([key, value]) =>
        [key, typeof value === 'string' && /^[{[]/.test(value) ? JSON.parse(value) : value]));
}

export async function download(client, url) {
    const answer = await fetch(url, client.getOptions({method: 'get'}));
    return {status: answer.status, type: answer.headers.get('content-type'), bytes: Buffer.from(await answer.arrayBuffer())};
}

// Another program that integrations call. `answer(path, body)` returns what it says, as an object.
export async function program(answer) {
    const calls = [];
    const server = createServer((request, response) => {
        const parts = [];
        request.on('data', (part) => parts.push(part));
        request.on('end', () => {
            const text = Buffer.concat(parts).toString();
            const body = request.headers['content-type']?.includes('json') ? JSON.parse(text) : text;
            calls.push({path: request.url, headers: request.headers, body});
            response.setHeader('Content-Type', 'application/json');
            response.end(JSON.stringify(answer(request.url, body)));
        });
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    return {
        url: `http://127.0.0.1:${server.address().port}`,
        called: (path) => eventually(`a call of ${path}`, () => calls.find((call) => call.path === path)),
        close: () => server.close(),
    };
}

// A picture: a red square of 64 x 64.
export const PNG = Buffer.from(
    'iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAb0lEQVR4nO3PAQkAAAyEwO9feoshgnABdLep8QUNyPEFDcjxBQ3I8QUNyPEFDcjxBQ3I8QUNyPEFDcjxBQ3I8QUNyPEFDcjxBQ3I8QUNyPEFDcjxBQ3I8QUNyPEFDcjxBQ3I8QUNyPEFDcjxBQ3IPanc8OLDQitxAAAAAElFTkSuQmCC',
    'base64');

export function form(fields, files) {
    const made = new FormData();
    Object.entries(fields).forEach(([name, value]) => made.append(name, value));
    Object.entries(files).forEach(([name, [filename, content]]) => made.append(name, new Blob([content]), filename));
    return made;
}
