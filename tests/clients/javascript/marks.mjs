// What people mark: unread, saved, to be reminded of, acknowledged, and the bookmarks of a channel.

import {listen, refused, same} from './cast.mjs';

export async function run(scene) {
    await posts(scene);
    await bookmarks(scene);
}

async function posts({ann, ben, benId, channel}) {
    const {id: first} = await ann.createPost({channel_id: channel, message: 'Mark me',
        metadata: {priority: {priority: 'important', requested_ack: true}}});
    await ann.createPost({channel_id: channel, message: 'And me'});
    await ben.viewMyChannel(channel);
    const ears = await listen(ben);
    same('markPostAsUnread', (await ben.markPostAsUnread(benId, first)).channel_id, channel);
    await ears.hear('post_unread');
    same('and from there it is unread', (await ben.getPostsUnread(channel, benId, 9, 0)).order.includes(first));
    same('getFlaggedPosts of none', (await ben.getFlaggedPosts(benId)).order, []);
    await ben.savePreferences(benId, [{user_id: benId, category: 'flagged_post', name: first, value: 'true'}]);
    same('getFlaggedPosts', (await ben.getFlaggedPosts(benId, channel)).order, [first]);
    await refused('getFlaggedPosts of another', 403, () => ann.getFlaggedPosts(benId));
    same('acknowledgePost', (await ben.acknowledgePost(first, benId)).user_id, benId);
    await ears.hear('post_acknowledgement_added');
    same('and the post shows it', (await ann.getPost(first)).metadata.acknowledgements.map((one) => one.user_id), [benId]);
    await ben.unacknowledgePost(first, benId);
    await ears.hear('post_acknowledgement_removed');
    await ben.addPostReminder(benId, first, Math.floor(Date.now() / 1000) + 1);
    same('the reminder comes', (await ears.hear('posted', (data) => data.channel_type === 'D')).post.type, 'reminder');
    ears.close();
}

async function bookmarks({ann, annId, ben, channel, someone}) {
    same('getChannelBookmarks of none', await ann.getChannelBookmarks(channel), []);
    const ears = await listen(ben);
    const make = (display_name) => ann.createChannelBookmark(channel,
        {display_name, type: 'link', link_url: `https://${display_name.toLowerCase()}.example.mil`}, '');
    const [map, roster] = [await make('Map'), await make('Roster')];
    same('createChannelBookmark', [map.display_name, map.owner_id], ['Map', annId]);
    same('its event', (await ears.hear('channel_bookmark_created')).bookmark.id, map.id);
    const {updated} = await ann.updateChannelBookmark(channel, map.id, {display_name: 'Chart'}, '');
    same('updateChannelBookmark', updated.display_name, 'Chart');
    await ears.hear('channel_bookmark_updated');
    const listed = async () => (await ben.getChannelBookmarks(channel)).map((one) => one.display_name);
    await ann.updateChannelBookmarkSortOrder(channel, roster.id, 0, '');
    same('updateChannelBookmarkSortOrder', await listed(), ['Roster', 'Chart']);
    await ears.hear('channel_bookmark_sorted');
    const {client: stranger} = await someone('kim');
    await refused('deleteChannelBookmark of a stranger', 403, () => stranger.deleteChannelBookmark(channel, map.id, ''));
    await ann.deleteChannelBookmark(channel, map.id, '');
    await ears.hear('channel_bookmark_deleted');
    same('deleteChannelBookmark', await listed(), ['Roster']);
    ears.close();
}
