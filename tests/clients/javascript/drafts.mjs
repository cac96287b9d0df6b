// What is not posted yet: drafts and scheduled posts.

import {listen, refused, same} from './cast.mjs';

export async function run({ann, annId, ben, team, channel}) {
    const {id: root} = await ann.createPost({channel_id: channel, message: 'A draft hangs on this'});
    same('getUserDrafts of none is null', await ann.getUserDrafts(team), null);
    const ears = await listen(ann);
    const texts = {'': 'To be continued', [root]: 'In the thread'};
    for (const [root_id, message] of Object.entries(texts)) {
        const draft = {user_id: annId, channel_id: channel, root_id, message, create_at: 0, update_at: 0, props: {}, file_ids: []};
        same('upsertDraft', (await ann.upsertDraft(draft, '')).message, message);
    }
    same('its event', (await ears.hear('draft_created')).draft.message, 'To be continued');
    const drafts = await ann.getUserDrafts(team);
    same('getUserDrafts', Object.fromEntries(drafts.map((draft) => [draft.root_id, draft.message])), texts);
    await ann.deleteDraft(channel, '', '');
    await ears.hear('draft_deleted');
    await ann.deleteDraft(channel, root, '');
    same('deleteDraft', await ann.getUserDrafts(team), null);

    const later = Date.now() + 3_600_000;
    const schedule = (scheduled_at, message) => ann.createScheduledPost({channel_id: channel, message, scheduled_at, user_id: annId}, '');
    await refused('createScheduledPost in the past', 400, () => schedule(1, 'too late'));
    const {data: made} = await schedule(later, 'At dawn');
    await ears.hear('scheduled_post_created');
    const waiting = async () => (await ann.getScheduledPosts(team, true)).data;
    same('getScheduledPosts', (await waiting())[team].map((post) => [post.id, post.message]), [[made.id, 'At dawn']]);
    await ann.updateScheduledPost({...made, message: 'At noon'}, '');
    same('updateScheduledPost', (await waiting())[team][0].message, 'At noon');
    await ears.hear('scheduled_post_updated');
    await refused('deleteScheduledPost of another', 403, () => ben.deleteScheduledPost(annId, made.id, ''));
    await ann.deleteScheduledPost(annId, made.id, '');
    await ears.hear('scheduled_post_deleted');
    same('deleteScheduledPost', ((await waiting())[team] ?? []), []);
    await schedule(Date.now() + 1500, 'Now it goes');
    await ears.hear('posted', (data) => data.post.message === 'Now it goes');
    ears.close();
}
