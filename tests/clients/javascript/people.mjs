// Users: who they are, how they look, where they are, and what they prefer.

import {PASSWORD, PNG, download, listen, refused, same, signedIn} from './cast.mjs';

export async function run(scene) {
    await users(scene);
    await pictures(scene);
    await presence(scene);
    await preferences(scene);
}

async function users({mark, root, ann, annId, annName, ben, benId, benName, team, channel}) {
    await refused('a wrong password', 401, () => signedIn(annName, 'wrong'),
        'api.user.login.invalid_credentials_email_username');
    const ears = await listen(ben);
    await ann.patchMe({nickname: 'Dóra', position: 'Lead'});
    same('patchMe is told to others', (await ears.hear('user_updated')).user.nickname, 'Dóra');
    ears.close();
    const me = await ann.getMe();
    same('getMe', [me.id, me.nickname, me.position], [annId, 'Dóra', 'Lead']);
    same('getUser of another hides what is private', 'notify_props' in await ben.getUser(annId), false);
    await refused('patchUser of another', 403, () => ben.patchUser({id: annId, nickname: 'x'}),
        'api.context.permissions.app_error');
    await refused('getUser of nobody', 404, () => ann.getUser('x'.repeat(26)));
    await refused('a name that is taken', 400, () => root.createUser(
        {username: annName, email: `x-${mark}@people.example`, password: PASSWORD}, '', ''));
    const ids = (found) => found.map((user) => user.id).sort();
    same('getProfilesByIds', ids(await ann.getProfilesByIds([annId, benId])), [annId, benId].sort());
    same('getProfilesByIds since', ids(await ann.getProfilesByIds([annId, benId], {since: me.update_at - 1})), [annId]);
    same('getProfilesByUsernames', ids(await ann.getProfilesByUsernames([benName, 'nobody.at.all'])), [benId]);
    same('getUserByUsername', (await ann.getUserByUsername(benName)).id, benId);
    same('searchUsers', ids(await ann.searchUsers(benName, {team_id: team})), [benId]);
    same('searchUsers finds nobody', await ann.searchUsers('zzzzzz', {}), []);
    const found = await ann.autocompleteUsers(mark, team, channel);
    same('autocompleteUsers', [ids(found.users), found.out_of_channel], [[annId, benId].sort(), []]);
    same('getProfilesInChannel', ids(await ann.getProfilesInChannel(channel)).includes(benId));
}

async function pictures({ann, annId, ben}) {
    const look = async () => (await download(ben, ben.getProfilePictureUrl(annId, Date.now()))).bytes;
    const initial = await look();
    await ann.uploadProfileImage('me', new File([PNG], 'a.png', {type: 'image/png'}));
    same('uploadProfileImage', (await look()).equals(initial), false);
    await ann.setDefaultProfileImage('me');
    same('setDefaultProfileImage', (await look()).equals(initial));
    await refused('uploadProfileImage of another', 403, () => ben.uploadProfileImage(annId, new File([PNG], 'a.png')));
}

async function presence({ann, annId, ben, benId}) {
    const ears = await listen(ann);
    const status = await ann.updateStatus({user_id: annId, status: 'dnd'});
    same('updateStatus', [status.status, status.manual], ['dnd', true]);
    await ears.hear('status_change', (data) => data.status === 'dnd');
    ears.close();
    same('getStatus', (await ben.getStatus(annId)).status, 'dnd');
    same('getStatusesByIds', (await ben.getStatusesByIds([annId, benId])).map((row) => row.user_id).sort(), [annId, benId].sort());
    await refused('updateStatus of another', 403, () => ben.updateStatus({user_id: annId, status: 'away'}));
    await ann.updateStatus({user_id: annId, status: 'online'});

    const custom = async () => (await ben.getUser(annId)).props.customStatus;
    await ann.updateCustomStatus({emoji: 'wave', text: 'at lunch', duration: '', expires_at: '0001-01-01T00:00:00Z'});
    const set = JSON.parse(await custom());
    same('updateCustomStatus', [set.emoji, set.text], ['wave', 'at lunch']);
    await ann.unsetCustomStatus();
    same('unsetCustomStatus', await custom(), '');
    await ann.removeRecentCustomStatus(set);
    await refused('removeRecentCustomStatus of none', 400, () => ann.removeRecentCustomStatus(set));
}

async function preferences({ann, annId, ben}) {
    const row = {user_id: annId, category: 'display_settings', name: 'use_military_time', value: 'true'};
    const has = (rows) => rows.some((other) => JSON.stringify(Object.entries(other).sort()) === JSON.stringify(Object.entries(row).sort()));
    const ears = await listen(ann);
    await ann.savePreferences(annId, [row]);
    same('savePreferences and its event', has((await ears.hear('preferences_changed')).preferences));
    same('getMyPreferences', has(await ann.getMyPreferences()));
    same('getUserPreferences', has(await ann.getUserPreferences(annId)));
    await refused('savePreferences of another', 403, () => ben.savePreferences(annId, [row]));
    await ann.deletePreferences(annId, [row]);
    await ears.hear('preferences_deleted');
    ears.close();
    same('deletePreferences', has(await ann.getMyPreferences()), false);
}
