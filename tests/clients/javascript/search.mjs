// Search for posts and files, with the grammar of Mattermost.

import {form, refused, same} from './cast.mjs';

export async function run({mark, ann, ben, benName, team, channel, someone}) {
    const word = `heliport${mark}`;
    const {id: mine} = await ann.createPost({channel_id: channel, message: `The ${word} is closed #weather${mark}`});
    const {id: his} = await ben.createPost({channel_id: channel, message: `Then the old ${word} is open`});
    const find = async (terms, either = false) => (await ann.searchPosts(team, terms, either)).order.toSorted();
    same('searchPosts', await find(word), [mine, his].sort());
    same('searchPosts from', await find(`${word} from:${benName}`), [his]);
    same('searchPosts in', await find(`${word} in:ops-${mark}`), [mine, his].sort());
    same('searchPosts without', await find(`${word} -closed`), [his]);
    same('searchPosts for a phrase', await find(`"old ${word}"`), [his]);
    same('searchPosts for a hashtag', await find(`#weather${mark}`), [mine]);
    same('searchPosts finds nothing', (await ann.searchPosts(team, 'zzzzzzzz', false)).posts, {});
    same('searchPosts in all teams', (await ann.searchPosts('', word, false)).order.toSorted(), [mine, his].sort());
    const {client: eve} = await someone('outsider');
    same('and finds only what one may read', (await eve.searchPosts('', word, false)).order, []);
    await refused('searchPosts of a stranger', 403, () => eve.searchPosts(team, word, false));

    const {file_infos: [file]} = await ann.uploadFile(form({channel_id: channel}, {files: [`${word}.txt`, 'runway']}));
    await ann.createPost({channel_id: channel, message: 'its plan', file_ids: [file.id]});
    same('searchFiles', (await ben.searchFiles(team, word, false)).order, [file.id]);
    same('searchFiles in all teams', (await ben.searchFiles('', word, false)).order, [file.id]);
    same('searchFiles finds nothing', (await ben.searchFiles(team, 'zzzzzzzz', false)).order, []);
}
