// Threads, and who follows them.

import {listen, refused, same} from './cast.mjs';

export async function run({ann, annId, annName, ben, benName, team, channel}) {
    const {id: root} = await ann.createPost({channel_id: channel, message: 'Which bridge?'});
    const ears = await listen(ann);
    const say = (message) => ben.createPost({channel_id: channel, message, root_id: root});
    const first = await say('The northern one');
    same('whoever asked follows', (await ears.hear('thread_updated')).thread.id, root);
    const second = await say(`It holds, @${annName}`);
    const whole = await ann.getPostThread(root, true, true, true);
    same('getPostThread', Object.keys(whole.posts).sort(), [root, first.id, second.id].sort());
    const part = await ann.getPaginatedPostThread(root, {
        perPage: 1, direction: 'down', fromPost: root, fromCreateAt: whole.posts[root].create_at});
    same('getPaginatedPostThread', [first.id in part.posts, second.id in part.posts, part.has_next], [true, false, true]);

    const one = () => ann.getUserThread(annId, team, root, true);
    const thread = await one();
    same('getUserThread', [thread.reply_count, thread.unread_replies, thread.unread_mentions], [2, 2, 1]);
    same('participants are whole users', thread.participants.map((user) => user.username), [benName]);
    const listed = await ann.getUserThreads(annId, team, {extended: true, unread: true});
    same('getUserThreads', [listed.threads.some((other) => other.id === root), listed.total_unread_mentions], [true, 1]);
    const totals = await ann.getUserThreads(annId, team, {totalsOnly: true});
    same('getUserThreads with totals only', totals.total_unread_threads >= 1 && !totals.threads?.length);
    const read = await ann.updateThreadReadForUser(annId, team, root, second.create_at);
    same('updateThreadReadForUser', [read.unread_replies, read.unread_mentions], [0, 0]);
    await ears.hear('thread_read_changed');
    await ann.markThreadAsUnreadForUser(annId, team, root, second.id);
    same('markThreadAsUnreadForUser', (await one()).unread_replies, 1);
    await ann.updateThreadsReadForUser(annId, team);
    same('updateThreadsReadForUser', (await ann.getUserThreads(annId, team, {})).total_unread_threads, 0);
    await ann.updateThreadFollowForUser(annId, team, root, false);
    await ears.hear('thread_follow_changed', (data) => data.state === false);
    await refused('getUserThread of one not followed', 404, one);
    await ann.updateThreadFollowForUser(annId, team, root, true);
    same('updateThreadFollowForUser', (await one()).id, root);
    await refused('getUserThreads of another', 403, () => ben.getUserThreads(annId, team, {}));
    ears.close();
}
