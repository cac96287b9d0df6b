// Teams, who is in them, and how people get there.

import {listen, refused, same} from './cast.mjs';

export async function run({mark, root, ann, annId, team, someone}) {
    same('getTeam', (await ann.getTeam(team)).display_name, 'JavaScript Team');
    same('getTeamByName', (await ann.getTeamByName(`js-${mark}`)).id, team);
    await refused('getTeamByName of none', 404, () => ann.getTeamByName('no-such-team'));
    same('getMyTeams', (await ann.getMyTeams()).map((mine) => mine.id), [team]);
    same('getTeamsForUser', (await ann.getTeamsForUser(annId)).map((mine) => mine.id), [team]);
    const [member] = await ann.getMyTeamMembers();
    same('getMyTeamMembers', [member.team_id, member.roles], [team, 'team_user']);
    const [unread] = await ann.getMyTeamUnreads(true);
    same('getMyTeamUnreads', [unread.team_id, unread.mention_count], [team, 0]);
    const closed = await root.createTeam({name: `closed-${mark}`, display_name: 'Closed', type: 'I'});
    await refused('getTeam of a closed one', 403, () => ann.getTeam(closed.id));
    const ears = await listen(ann);
    await root.addToTeam(closed.id, annId);
    same('whoever is added hears it', (await ears.hear('added_to_team')).team_id, closed.id);
    await root.removeFromTeam(closed.id, annId);
    await ears.hear('leave_team', (data) => data.team_id === closed.id);
    ears.close();

    const {client: guest, me} = await someone('gus');
    const {invite_id: invite} = await root.getTeam(team);
    same('getTeamInviteInfo', (await guest.getTeamInviteInfo(invite)).name, `js-${mark}`);
    same('joinTeam', (await guest.joinTeam(invite)).user_id, me.id);
    await refused('addToTeamFromInvite with a word that nobody gave out', 400, () => guest.addToTeamFromInvite('no such'));
    await refused('regenerateTeamInviteId', 403, () => ann.regenerateTeamInviteId(team));
    same('regenerateTeamInviteId', (await root.regenerateTeamInviteId(team)).invite_id === invite, false);
    await refused('getTeamInviteInfo of an old link', 404, () => guest.getTeamInviteInfo(invite));
    // No mail leaves the box, and it says so.
    await refused('sendEmailInvitesToTeam', 501, () => root.sendEmailInvitesToTeam(team, ['someone@people.example']));
}
