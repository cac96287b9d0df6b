// @mattermost/client, unchanged, against a running edge and hub.
//
// tests/system/clients.rs starts the two nodes and calls this with their addresses and administrators:
// HOLDFAST_{EDGE,HUB}_URL, HOLDFAST_{EDGE,HUB}_ADMIN, HOLDFAST_{EDGE,HUB}_PASSWORD, and with HOLDFAST_NODE_MODULES,
// the folder that the pinned packages are installed in.

import assert from 'node:assert/strict';
import {createHash, randomBytes} from 'node:crypto';

import {PASSWORD, administrator, download, eventually, form, listen, refused, said, same, signedIn} from './cast.mjs';

const POST_FIELDS = ['id', 'create_at', 'update_at', 'edit_at', 'delete_at', 'user_id', 'channel_id', 'root_id',
    'message', 'type', 'is_pinned', 'file_ids'];

const only = (object) => Object.fromEntries(POST_FIELDS.map((field) => [field, object[field]]));
const equal = (left, right) => JSON.stringify(left) === JSON.stringify(right);
const sum = async (client, id) => createHash('sha256').update((await download(client, client.getFileUrl(id))).bytes).digest('hex');

const {client: edge} = await administrator('EDGE');
const {client: hub} = await administrator('HUB');
const mark = randomBytes(4).toString('hex');
const team = await edge.createTeam({name: `js-${mark}`, display_name: 'JavaScript Team', type: 'O'});
const channel = await edge.createChannel(
    {team_id: team.id, name: `ops-${mark}`, display_name: 'Ops', type: 'P', purpose: '', header: ''});
const dora = await edge.createUser(
    {username: `dora-${mark}`, email: `dora-${mark}@example.mil`, password: PASSWORD, nickname: 'Dóra'}, '', '');
await edge.addToTeam(team.id, dora.id);
await edge.addToChannel(dora.id, channel.id);
const {client: doraEdge} = await signedIn(dora.username);

const ears = await listen(doraEdge);
const root = await edge.createPost({channel_id: channel.id, message: 'Bridge **out** at km 12',
    metadata: {priority: {priority: 'important', requested_ack: false}}});
const answer = await doraEdge.createPost({channel_id: channel.id, message: 'Seen', root_id: root.id});
await doraEdge.patchPost({id: answer.id, message: 'Seen, turning back'});
await doraEdge.addReaction(dora.id, root.id, 'warning');
const gone = await edge.createPost({channel_id: channel.id, message: 'wrong channel'});
await edge.deletePost(gone.id);
const content = randomBytes(80_000);
const {file_infos: [file]} = await doraEdge.uploadFile(form({channel_id: channel.id}, {files: ['Skizze größer.bin', content]}));
const withFile = await doraEdge.createPost({channel_id: channel.id, message: 'sketch', file_ids: [file.id]});

for (const {id} of [root, answer, withFile]) {
    await eventually(`post ${id} equal at the hub`,
        async () => equal(only(await hub.getPost(id)), only(await edge.getPost(id))));
}
await eventually('the reaction at the hub', async () => {
    const reactions = await hub.getReactionsForPost(root.id) ?? [];
    return reactions.length === 1 && reactions[0].user_id === dora.id;
});
const ours = createHash('sha256').update(content).digest('hex');
await eventually('the file at the hub', async () => await sum(hub, file.id) === ours);
await eventually('the deletion at the hub', async () => !(await hub.getPosts(channel.id)).order.includes(gone.id));
assert.equal((await hub.getPost(root.id)).metadata.priority.priority, 'important');
assert.equal((await hub.getUser(dora.id)).nickname, 'Dóra');
const [atEdge, atHub] = [await edge.getChannel(channel.id), await hub.getChannel(channel.id)];
same('the channel at the hub', [atHub.name, atHub.type, atHub.create_at], [atEdge.name, atEdge.type, atEdge.create_at]);
said('the replica at the hub has the same ids, authors, times, reactions and bytes');

const back = await hub.createPost({channel_id: channel.id, message: 'Pontoon in two hours', root_id: root.id});
const heard = await ears.hear('posted', (data) => data.post.id === back.id);
same('an answer written at the hub reaches the client at the edge as an event', heard.post.create_at, back.create_at);
same('and as a post', only(await doraEdge.getPost(back.id)), only(await hub.getPost(back.id)));
ears.close();
await edge.logout();
await refused('a client that signed out', 401, () => edge.getMe());
