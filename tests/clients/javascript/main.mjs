// @mattermost/client, unchanged, over every endpoint of ../sets.txt that it has a method for, against a running edge.
//
// tests/system/clients.rs starts the node, calls this with its address and administrator (HOLDFAST_EDGE_URL, _ADMIN and
// _PASSWORD) and with HOLDFAST_NODE_MODULES, the folder that the pinned packages are installed in, and has
// ../python/conformance.py look at the traffic, which is kept in the file that HOLDFAST_TRAFFIC names. Programs of
// 127.0.0.1 must be allowed as integrations there.

import {randomBytes} from 'node:crypto';

import * as accounts from './accounts.mjs';
import {PASSWORD, administrator, signedIn} from './cast.mjs';
import * as channels from './channels.mjs';
import * as drafts from './drafts.mjs';
import * as emoji from './emoji.mjs';
import * as files from './files.mjs';
import * as integrations from './integrations.mjs';
import * as marks from './marks.mjs';
import {offers} from './offers.mjs';
import * as people from './people.mjs';
import * as posts from './posts.mjs';
import * as search from './search.mjs';
import * as server from './server.mjs';
import * as teams from './teams.mjs';
import * as threads from './threads.mjs';

// A team with a channel, its two members and the administrator, who is in both as well.
async function setUp() {
    const mark = randomBytes(4).toString('hex');
    const {client: root, me: rootUser} = await administrator();
    // One more user, signed in, who is in no team yet.
    const someone = async (name) => {
        const username = `${name}-${mark}`;
        await root.createUser({username, email: `${username}@people.example`, password: PASSWORD}, '', '');
        return signedIn(username);
    };
    const [ann, ben] = [await someone('dora'), await someone('emil')];
    const team = await root.createTeam({name: `js-${mark}`, display_name: 'JavaScript Team', type: 'O'});
    await root.addToTeam(team.id, ann.me.id);
    await root.addToTeam(team.id, ben.me.id);
    const channel = await ann.client.createChannel({
        team_id: team.id, name: `ops-${mark}`, display_name: 'Operations', type: 'O', purpose: 'what is done', header: ''});
    await ann.client.addToChannel(ben.me.id, channel.id);
    await ann.client.addToChannel(rootUser.id, channel.id);
    return {mark, root, rootId: rootUser.id, ann: ann.client, annId: ann.me.id, annName: ann.me.username,
        ben: ben.client, benId: ben.me.id, benName: ben.me.username, team: team.id, channel: channel.id, someone};
}

await offers();
const scene = await setUp();
for (const [name, area] of Object.entries({server, people, teams, channels, posts, threads, drafts, files, search, emoji,
    marks, integrations, accounts})) {
    console.log(`# ${name}`);
    await area.run(scene);
}
