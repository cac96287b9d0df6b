// Channels, who is in them, and the sidebar.

import {listen, refused, same} from './cast.mjs';

export async function run(scene) {
    await kinds(scene);
    await membership(scene);
    await lists(scene);
    await sidebar(scene);
}

async function kinds({mark, ann, annId, ben, benId, rootId, team, channel}) {
    same('getChannel', (await ben.getChannel(channel)).purpose, 'what is done');
    await refused('a name that is taken', 400, () => ann.createChannel(
        {team_id: team, name: `ops-${mark}`, display_name: 'x', type: 'O'}), 'store.sql_channel.save_channel.exists.app_error');
    const secret = await ann.createChannel({team_id: team, name: `plan-${mark}`, display_name: 'Plan', type: 'P'});
    await refused('getChannel of a private one', 403, () => ben.getChannel(secret.id));
    const direct = await ann.createDirectChannel([annId, benId]);
    same('createDirectChannel', [direct.type, direct.name], ['D', [annId, benId].sort().join('__')]);
    const group = await ann.createGroupChannel([annId, benId, rootId]);
    same('createGroupChannel', [group.type, group.name.length], ['G', 40]);
    same('getProfilesInGroupChannels', Object.keys(await ann.getProfilesInGroupChannels([group.id])), [group.id]);
    const ears = await listen(ben);
    same('patchChannel', (await ann.patchChannel(channel, {header: 'Read **first**'})).header, 'Read **first**');
    same('its event', (await ears.hear('channel_updated')).channel.header, 'Read **first**');
    ears.close();
}

async function membership({mark, ann, annId, ben, benId, benName, team}) {
    const {id} = await ann.createChannel({team_id: team, name: `open-${mark}`, display_name: 'Open', type: 'O'});
    const ears = await listen(ben);
    same('joining', (await ben.addToChannel(benId, id)).user_id, benId);
    await ears.hear('user_added', (data) => data.user_id === benId);
    const members = await ann.getChannelMembers(id);
    same('getChannelMembers', members.map((member) => member.user_id).sort(), [annId, benId].sort());
    same('getMyChannelMember', [(await ben.getMyChannelMember(id)).roles], ['channel_user']);
    const stats = await ben.getChannelStats(id, true);
    same('getChannelStats', [stats.member_count, stats.pinnedpost_count, stats.files_count], [2, 0, 0]);
    await ben.updateChannelNotifyProps({channel_id: id, user_id: benId, desktop: 'mention'});
    same('updateChannelNotifyProps', (await ben.getMyChannelMember(id)).notify_props.desktop, 'mention');
    await ann.createPost({channel_id: id, message: `For @${benName}`});
    same('what is unread', (await ben.getMyChannelMember(id)).mention_count, 1);
    same('viewMyChannel', (await ben.viewMyChannel(id)).status, 'OK');
    await ears.hear('multiple_channels_viewed', (data) => id in data.channel_times);
    same('and it is read', (await ben.getMyChannelMember(id)).mention_count, 0);
    await ann.removeFromChannel(benId, id);
    same('whoever is removed hears it', (await ears.hear('user_removed')).channel_id, id);
    ears.close();
}

async function lists({ann, annId, team, channel}) {
    const ids = (rows, key = 'id') => new Set(rows.map((row) => row[key]));
    same('getChannels', (await ann.getChannels(team)).some((one) => one.name === 'town-square'));
    const all = await ann.getAllTeamsChannels();
    same('getAllTeamsChannels', [...ids(all, 'type')].sort(), ['D', 'G', 'O', 'P']);
    same('channels of no team have an empty one', all.filter((one) => 'DG'.includes(one.type)).every((one) => one.team_id === ''));
    const mine = ids(await ann.getMyChannels(team));
    same('getMyChannels', mine.has(channel));
    same('getMyChannelMembers', ids(await ann.getMyChannelMembers(team), 'channel_id'), mine);
    same('getAllChannelsMembers', ids(await ann.getAllChannelsMembers(annId, 0, 200), 'channel_id'), ids(all));
}

async function sidebar({ann, annId, ben, team, channel}) {
    const initial = await ann.getChannelCategories(annId, team);
    same('getChannelCategories', initial.categories.map((one) => one.type), ['favorites', 'channels', 'direct_messages']);
    same('empty is no null', initial.categories[0].channel_ids, []);
    const ears = await listen(ann);
    const made = await ann.createChannelCategory(annId, team, {
        user_id: annId, team_id: team, display_name: 'Watch', type: 'custom', channel_ids: [channel]});
    await ears.hear('sidebar_category_created');
    const look = () => ann.getChannelCategory(annId, team, made.id);
    same('getChannelCategory', (await look()).channel_ids, [channel]);
    await ann.updateChannelCategory(annId, team, {...made, display_name: 'Guard'});
    same('updateChannelCategory', (await look()).display_name, 'Guard');
    await ears.hear('sidebar_category_updated');
    await ann.updateChannelCategories(annId, team, [{...await look(), collapsed: true}]);
    same('updateChannelCategories', (await look()).collapsed);
    const turned = (await ann.getChannelCategoryOrder(annId, team)).reverse();
    await ann.updateChannelCategoryOrder(annId, team, turned);
    same('updateChannelCategoryOrder', (await ann.getChannelCategories(annId, team)).order, turned);
    await ears.hear('sidebar_category_order_updated');
    await refused('the sidebar of another', 403, () => ben.getChannelCategories(annId, team));
    await ann.deleteChannelCategory(annId, team, made.id);
    await ears.hear('sidebar_category_deleted');
    ears.close();
}
