// @mattermost/client, unchanged, against a running edge and hub.
//
// tests/system/clients.rs starts the two nodes and calls this with their addresses and administrators:
// HOLDFAST_{EDGE,HUB}_URL, HOLDFAST_{EDGE,HUB}_ADMIN, HOLDFAST_{EDGE,HUB}_PASSWORD, and with HOLDFAST_NODE_MODULES,
// the folder that the pinned packages are installed in.

import assert from 'node:assert/strict';
import {createHash, randomBytes} from 'node:crypto';
import {createRequire} from 'node:module';
import {setTimeout as pause} from 'node:timers/promises';

const require = createRequire(`${process.env.HOLDFAST_NODE_MODULES}/package.json`);
const {Client4, WebSocketClient} = require('@mattermost/client');
const WebSocket = require('ws');

// What a browser has and this version of Node has not.
globalThis.WebSocket ??= WebSocket;
globalThis.CloseEvent ??= class CloseEvent extends Event {
    constructor(type, init) {
        super(type);
        Object.assign(this, init);
    }
};

const PATIENCE_MS = 90_000;
const POST_FIELDS = ['id', 'create_at', 'update_at', 'edit_at', 'delete_at', 'user_id', 'channel_id', 'root_id',
    'message', 'type', 'is_pinned', 'file_ids'];

async function signedIn(side, login = process.env[`HOLDFAST_${side}_ADMIN`],
    password = process.env[`HOLDFAST_${side}_PASSWORD`]) {
    const client = new Client4();
    client.setUrl(process.env[`HOLDFAST_${side}_URL`]);
    const me = await client.login(login, password);
    assert.ok(client.getToken(), 'the login answer carries a Token header');
    return {client, me};
}

async function eventually(what, look) {
    const deadline = Date.now() + PATIENCE_MS;
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
        assert.ok(Date.now() < deadline, `${what}: not within ${PATIENCE_MS} ms; ${problem}`);
        await pause(200);
    }
}

// A signed-in WebSocketClient and the events it has seen.
async function listen(side, client) {
    const socket = new WebSocketClient({newWebSocketFn: (url) => new WebSocket(url)});
    const events = [];
    let missed = 0;
    socket.addMessageListener((event) => events.push(event));
    socket.addMissedMessageListener(() => missed++);
    const url = process.env[`HOLDFAST_${side}_URL`].replace(/^http/, 'ws');
    socket.initialize(`${url}/api/v4/websocket`, client.getToken());
    const saw = (kind, fits = () => true) => eventually(`event ${kind}`,
        () => events.find((e) => e.event === kind && fits(e)));
    await saw('hello');
    return {socket, events, saw, missed: () => missed};
}

const post = (event) => JSON.parse(event.data.post);
const only = (object) => Object.fromEntries(POST_FIELDS.map((field) => [field, object[field]]));
const sum = (bytes) => createHash('sha256').update(bytes).digest('hex');
const same = (left, right) => JSON.stringify(left) === JSON.stringify(right);
const said = (step) => console.log(`ok - node: ${step}`);

async function download(client, fileId) {
    const answer = await fetch(client.getFileUrl(fileId), client.getOptions({method: 'get'}));
    assert.equal(answer.status, 200);
    return Buffer.from(await answer.arrayBuffer());
}

const {client: edge, me: admin} = await signedIn('EDGE');
const {client: hub} = await signedIn('HUB');
await assert.rejects(signedIn('EDGE', undefined, 'wrong-Password-1'), (error) =>
    error.status_code === 401 && error.server_error_id === 'api.user.login.invalid_credentials_email_username');
said('login at edge and hub; a wrong password is refused with Mattermost\'s own error id');

const mark = randomBytes(4).toString('hex');
const team = await edge.createTeam({name: `js-${mark}`, display_name: 'JavaScript Team', type: 'O'});
const channel = await edge.createChannel(
    {team_id: team.id, name: `ops-${mark}`, display_name: 'Ops', type: 'P', purpose: '', header: ''});
const password = 'Correct-Horse-7';
const dora = await edge.createUser(
    {username: `dora-${mark}`, email: `dora-${mark}@example.mil`, password, nickname: 'Dóra'}, '', '');
await edge.addToTeam(team.id, dora.id);
await edge.addToChannel(dora.id, channel.id);
const {client: doraEdge} = await signedIn('EDGE', dora.username, password);
assert.ok((await doraEdge.getMyTeams()).some((t) => t.id === team.id));
assert.ok((await doraEdge.getMyChannels(team.id)).some((c) => c.id === channel.id));
said('team, private channel, user and membership');

const ears = await listen('EDGE', doraEdge);
const root = await edge.createPost({channel_id: channel.id, message: 'Bridge **out** at km 12',
    metadata: {priority: {priority: 'important', requested_ack: false}}});
assert.equal(post(await ears.saw('posted', (e) => post(e).id === root.id)).message, root.message);
const answer = await doraEdge.createPost({channel_id: channel.id, message: 'Seen', root_id: root.id});
const edited = await doraEdge.patchPost({id: answer.id, message: 'Seen, turning back'});
assert.ok(edited.edit_at > 0);
assert.equal(post(await ears.saw('post_edited')).message, 'Seen, turning back');
await doraEdge.addReaction(dora.id, root.id, 'warning');
assert.equal(JSON.parse((await ears.saw('reaction_added')).data.reaction).emoji_name, 'warning');
const gone = await edge.createPost({channel_id: channel.id, message: 'wrong channel'});
await edge.deletePost(gone.id);
assert.equal(post(await ears.saw('post_deleted')).id, gone.id);
said('post, reply, edit, react and delete, each with its WebSocket event');

const content = randomBytes(80_000);
const form = new FormData();
form.append('channel_id', channel.id);
form.append('files', new Blob([content]), 'Skizze größer.bin');
const {file_infos: [file]} = await doraEdge.uploadFile(form);
assert.equal(file.name, 'Skizze größer.bin');
assert.equal(file.size, content.length);
const withFile = await doraEdge.createPost({channel_id: channel.id, message: 'sketch', file_ids: [file.id]});
assert.equal(withFile.metadata.files[0].id, file.id);
assert.equal(sum(await download(doraEdge, file.id)), sum(content));
said('upload and download');

const page = await doraEdge.getPosts(channel.id);
for (const id of [root.id, answer.id, withFile.id]) {
    assert.ok(page.order.includes(id), 'the channel shows what was posted');
}
assert.ok(!page.order.includes(gone.id), 'a deleted post is not shown');
assert.deepEqual(Object.keys((await doraEdge.getPostThread(root.id)).posts).sort(), [root.id, answer.id].sort());
said('channel page and thread');

for (const {id} of [root, answer, withFile]) {
    await eventually(`post ${id} equal at the hub`,
        async () => same(only(await hub.getPost(id)), only(await edge.getPost(id))));
}
await eventually('the reaction at the hub', async () => {
    const reactions = await hub.getReactionsForPost(root.id) ?? [];
    return reactions.length === 1 && reactions[0].user_id === dora.id;
});
await eventually('the file at the hub', async () => sum(await download(hub, file.id)) === sum(content));
assert.equal((await hub.getPost(root.id)).metadata.priority.priority, 'important');
assert.equal((await hub.getUser(dora.id)).nickname, 'Dóra');
const [atEdge, atHub] = [await edge.getChannel(channel.id), await hub.getChannel(channel.id)];
assert.deepEqual([atHub.name, atHub.type, atHub.create_at], [atEdge.name, atEdge.type, atEdge.create_at]);
said('the replica at the hub has the same ids, authors, times, reactions and bytes');

const back = await hub.createPost({channel_id: channel.id, message: 'Pontoon in two hours', root_id: root.id});
assert.equal(post(await ears.saw('posted', (e) => post(e).id === back.id)).create_at, back.create_at);
assert.ok(same(only(await doraEdge.getPost(back.id)), only(await hub.getPost(back.id))));
said('an answer written at the hub reaches the client at the edge as an event');

assert.equal(ears.missed(), 0, 'the reliable WebSocket lost its place');
const numbers = ears.events.map((e) => e.seq);
assert.deepEqual(numbers, numbers.map((_, index) => index), 'the event numbers have a gap');
ears.socket.close();
await edge.logout();
await assert.rejects(edge.getMe(), (error) => error.status_code === 401);
assert.equal(admin.username, process.env.HOLDFAST_EDGE_ADMIN);
said('logout');
