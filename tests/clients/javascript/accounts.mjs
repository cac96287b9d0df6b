// Bots, access tokens, sessions, passwords and second factors. The last area: it ends with everybody signed out.

import {createHmac} from 'node:crypto';

import {PASSWORD, administrator, refused, same, signedIn, signedOut} from './cast.mjs';

export async function run(scene) {
    await bots(scene);
    await tokens(scene);
    await secondFactor(scene);
    await passwords(scene);
    await sessions(scene);
}

async function bots({mark, root, ann, annId}) {
    const {user_id: bot} = await root.createBot({username: `weather-${mark}`, display_name: 'Weather', description: 'says it'});
    same('getBot', (await root.getBot(bot)).description, 'says it');
    same('patchBot', (await root.patchBot(bot, {username: `sky-${mark}`})).username, `sky-${mark}`);
    const listed = async (how = 'getBots') => (await root[how](0, 200)).some((one) => one.user_id === bot);
    same('getBots', await listed());
    await root.disableBot(bot);
    same('disableBot', [await listed(), await listed('getBotsIncludeDeleted')], [false, true]);
    same('enableBot', (await root.enableBot(bot)).delete_at, 0);
    same('assignBot', (await root.assignBot(bot, annId)).owner_id, annId);
    await refused('createBot by a user', 403, () => ann.createBot({username: 'no'}));
    const robot = signedOut();
    robot.setToken((await root.createUserAccessToken(bot, 'script')).token);
    same('a bot signs in with its token', (await robot.getMe()).is_bot);
}

async function tokens({root, ann, annId, ben}) {
    await root.updateUserRoles(annId, 'system_user system_user_access_token');
    const made = await ann.createUserAccessToken(annId, 'laptop');
    const byToken = signedOut();
    byToken.setToken(made.token);
    same('createUserAccessToken', (await byToken.getMe()).id, annId);
    const [mine] = await ann.getUserAccessTokensForUser(annId);
    same('getUserAccessTokensForUser', [mine.id, mine.token ?? ''], [made.id, '']);
    same('getUserAccessToken', (await ann.getUserAccessToken(made.id)).description, 'laptop');
    await refused('getUserAccessToken of another', 403, () => ben.getUserAccessToken(made.id));
    same('getUserAccessTokens', (await root.getUserAccessTokens(0, 200)).some((one) => one.id === made.id));
    await ann.disableUserAccessToken(made.id);
    await refused('a disabled token', 401, () => byToken.getMe());
    await ann.enableUserAccessToken(made.id);
    same('enableUserAccessToken', (await byToken.getMe()).id, annId);
    await ann.revokeUserAccessToken(made.id);
    await refused('a revoked token', 401, () => byToken.getMe());
}

async function secondFactor({ben, benId, benName}) {
    const {secret, qr_code: picture} = await ben.generateMfaSecret(benId);
    same('generateMfaSecret draws a code', Buffer.from(picture, 'base64').subarray(1, 4).toString(), 'PNG');
    await refused('updateUserMfa with a wrong code', 401, () => ben.updateUserMfa(benId, true, '000000'));
    await ben.updateUserMfa(benId, true, code(secret, Date.now()));
    await refused('a login without a code', 401, () => signedIn(benName), 'mfa.validate_token.authenticate.app_error');
    // The code of the next step: that of this one is spent.
    same('a login with a code', (await signedOut().login(benName, PASSWORD, code(secret, Date.now() + 30_000))).mfa_active);
    await ben.updateUserMfa(benId, false, '');
    same('updateUserMfa off', (await signedIn(benName)).me.id, benId);
}

// What an authenticator app shows (RFC 6238).
function code(secret, atMs) {
    const bits = [...secret.replace(/=+$/, '')].map((letter) =>
        'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(letter).toString(2).padStart(5, '0')).join('');
    const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
    const counter = Buffer.alloc(8);
    counter.writeBigUInt64BE(BigInt(Math.floor(atMs / 30_000)));
    const digest = createHmac('sha1', key).update(counter).digest();
    const start = digest.at(-1) & 15;
    return String((digest.readUInt32BE(start) & 0x7FFFFFFF) % 1_000_000).padStart(6, '0');
}

async function passwords({someone}) {
    const {client, me} = await someone('pat');
    const fresh = 'a quite different password 4';
    await refused('updateUserPassword without the present one', 400, () => client.updateUserPassword(me.id, 'wrong', fresh));
    await client.updateUserPassword(me.id, PASSWORD, fresh);
    same('updateUserPassword', (await signedIn(me.username, fresh)).me.id, me.id);
    await refused('the old password', 401, () => signedIn(me.username));
    // No mail leaves the box, and it says so.
    await refused('sendPasswordResetEmail', 501, () => client.sendPasswordResetEmail(`${me.username}@people.example`));
    await refused('resetUserPassword with a word that nobody sent', 400, () => client.resetUserPassword('x'.repeat(64), fresh));
}

async function sessions({root, rootId, ann, annId, annName, ben}) {
    const {client: second} = await signedIn(annName);
    const before = await ann.getSessions(annId);
    same('getSessions has no tokens', before.every((session) => !session.token));
    await refused('getSessions of another', 403, () => ben.getSessions(annId));
    const newest = before.toSorted((a, b) => b.create_at - a.create_at)[0];
    await ann.revokeSession(annId, newest.id);
    await refused('a revoked session', 401, () => second.getMe());
    await root.revokeAllSessionsForUser(annId);
    await refused('every session of one user', 401, () => ann.getMe());
    await refused('revokeSessionsForAllUsers by a user', 403, () => ben.revokeSessionsForAllUsers());
    await root.revokeSessionsForAllUsers();
    await refused('every session', 401, () => ben.getMe());
    same('administrator signs in anew', (await administrator()).me.id, rootId);
}
