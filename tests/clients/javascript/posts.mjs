// Posts of a channel in every way that they are read, and reactions.

import {listen, refused, same} from './cast.mjs';

export async function run(scene) {
    await writing(scene);
    await reading(scene);
    await reactions(scene);
}

async function writing({ann, annId, annName, ben, channel}) {
    const ears = await listen(ben);
    const post = await ann.createPost({channel_id: channel, message: 'Convoy **leaves** at six',
        metadata: {priority: {priority: 'important', requested_ack: false}}});
    same('createPost', [post.user_id, post.edit_at], [annId, 0]);
    const heard = await ears.hear('posted');
    same('its event', [heard.post.id, heard.sender_name], [post.id, `@${annName}`]);
    same('getPost', (await ben.getPost(post.id)).metadata.priority.priority, 'important');
    const edited = await ann.patchPost({id: post.id, message: 'Convoy leaves at seven'});
    same('patchPost', [edited.message, edited.edit_at > 0], ['Convoy leaves at seven', true]);
    same('its event', (await ears.hear('post_edited')).post.message, 'Convoy leaves at seven');
    await refused('patchPost of another', 403, () => ben.patchPost({id: post.id, message: 'x'}));
    await ben.pinPost(post.id);
    same('pinPost', (await ann.getPinnedPosts(channel)).order, [post.id]);
    await ben.unpinPost(post.id);
    same('unpinPost', (await ann.getPinnedPosts(channel)).order, []);
    const gone = await ann.createPost({channel_id: channel, message: 'wrong channel'});
    await refused('deletePost of another', 403, () => ben.deletePost(gone.id));
    await ann.deletePost(gone.id);
    same('deletePost has an event', (await ears.hear('post_deleted')).post.id, gone.id);
    await refused('getPost of a deleted one', 404, () => ann.getPost(gone.id));
    const [left] = await ben.getPostsByIds([gone.id]);
    same('getPostsByIds of a deleted one has no text', [left.delete_at > 0, left.message], [true, '']);
    await refused('createPost in no channel', 403, () => ann.createPost({channel_id: 'x'.repeat(26), message: 'm'}));
    ears.close();
}

async function reading({mark, ann, ben, benId, team}) {
    const {id: channel} = await ann.createChannel({team_id: team, name: `log-${mark}`, display_name: 'Log', type: 'O'});
    await ann.addToChannel(benId, channel);
    const ids = [];
    for (let n = 0; n < 6; n++) {
        ids.push((await ann.createPost({channel_id: channel, message: `Entry ${n}`})).id);
    }
    const newest = ids.toReversed();
    const page = await ben.getPosts(channel, 0, 2);
    same('getPosts', [page.order, page.prev_post_id, page.next_post_id], [newest.slice(0, 2), newest[2], '']);
    same('getPosts by pages', (await ben.getPosts(channel, 1, 2)).order, newest.slice(2, 4));
    same('getPostsBefore', (await ben.getPostsBefore(channel, ids[3], 0, 2)).order, [ids[2], ids[1]]);
    same('getPostsAfter', (await ben.getPostsAfter(channel, ids[3])).order, [ids[5], ids[4]]);
    const changed = await ann.patchPost({id: ids[0], message: 'Entry 0, corrected'});
    same('getPostsSince', (await ben.getPostsSince(channel, changed.update_at - 1)).order, [ids[0]]);
    same('getPostsByIds', (await ben.getPostsByIds(ids.slice(0, 2))).map((post) => post.id).sort(), ids.slice(0, 2).sort());
    await ben.viewMyChannel(channel);
    const fresh = await ann.createPost({channel_id: channel, message: 'Entry 6'});
    same('getPostsUnread', (await ben.getPostsUnread(channel, benId, 5, 2)).order, [fresh.id, ids[5], ids[4]]);
}

async function reactions({ann, annId, ben, benId, channel}) {
    const post = await ann.createPost({channel_id: channel, message: 'Who is there?'});
    same('getReactionsForPost of none is null', await ben.getReactionsForPost(post.id), null);
    const ears = await listen(ann);
    same('addReaction', (await ben.addReaction(benId, post.id, 'wave')).emoji_name, 'wave');
    same('its event', (await ears.hear('reaction_added')).reaction.user_id, benId);
    same('getReactionsForPost', (await ann.getReactionsForPost(post.id)).map((one) => one.emoji_name), ['wave']);
    await refused('addReaction for another', 403, () => ben.addReaction(annId, post.id, 'wave'));
    await refused('removeReaction of another', 403, () => ann.removeReaction(benId, post.id, 'wave'));
    await ben.removeReaction(benId, post.id, 'wave');
    await ears.hear('reaction_removed');
    ears.close();
}
