// What the server says about itself, and its WebSocket.

import {listen, refused, same, signedIn, signedOut} from './cast.mjs';

export async function run({root, ann, annId, ben, benId, benName, team, channel}) {
    const stranger = signedOut();
    same('ping', (await stranger.ping(false)).status, 'OK');
    same('ping with the server\'s status', (await stranger.ping(true)).database_status, 'OK');
    const [few, all] = [await stranger.getClientConfig(), await ann.getClientConfig()];
    same('getClientConfig is texts only', Object.values(all).every((value) => typeof value === 'string'));
    same('strangers get less of it', Object.keys(few).length < Object.keys(all).length && few.DiagnosticId === all.DiagnosticId);
    same('getClientLicenseOld', await stranger.getClientLicenseOld(), {IsLicensed: 'false'});
    same('getWebappPlugins', await stranger.getWebappPlugins(), []);
    same('getServerLimits', (await root.getServerLimits()).data.activeUserCount >= 3);
    same('getServerLimits tells users nothing', (await ann.getServerLimits()).data.activeUserCount, 0);
    same('the client learned the version', ann.getServerVersion().startsWith(`${all.Version}.`));
    const roles = await ann.getRolesByNames(['system_user', 'channel_user', 'no_such_role']);
    same('getRolesByNames', roles.map((role) => role.name).sort(), ['channel_user', 'system_user']);
    same('a role has permissions', roles.every((role) => Array.isArray(role.permissions)));
    await refused('a stranger', 401, () => stranger.getMe(), 'api.context.session_expired.app_error');

    const ears = await listen(ann);
    const other = await listen(ben);
    other.socket.userTyping(channel, '', () => {});
    same('who types', (await ears.hear('typing')).user_id, benId);
    ears.close();
    other.close();

    await refused('getGroups', 501, () => ann.getGroups({filter_allow_reference: false}), 'api.license_error');
    await refused('getGroupsByUserId', 501, () => ann.getGroupsByUserId(annId));
    await refused('getAllGroupsAssociatedToTeam', 501, () => ann.getAllGroupsAssociatedToTeam(team));
    await refused('getAllGroupsAssociatedToChannel', 501, () => ann.getAllGroupsAssociatedToChannel(channel));
    await refused('getTermsOfService', 404, () => ann.getTermsOfService());
    await refused('updateMyTermsOfServiceStatus', 404, () => ann.updateMyTermsOfServiceStatus('x'.repeat(26), true));
    same('getCustomProfileAttributeFields', await ann.getCustomProfileAttributeFields(), []);
    await refused('getUserCustomProfileAttributesValues', 403, () => ann.getUserCustomProfileAttributesValues(annId));

    const {client: short} = await signedIn(benName);
    await short.logout();
    await refused('a session after its logout', 401, () => short.getMe());
}
