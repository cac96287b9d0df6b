// Custom emoji.

import {PNG, download, listen, refused, same} from './cast.mjs';

export async function run({mark, ann, annId, ben}) {
    const name = `j${mark}`;
    const ears = await listen(ben);
    const create = () => ann.createCustomEmoji({name, creator_id: annId}, new File([PNG], 'e.png', {type: 'image/png'}));
    const made = await create();
    same('createCustomEmoji', [made.name, made.creator_id], [name, annId]);
    same('its event', (await ears.hear('emoji_added')).emoji.id, made.id);
    ears.close();
    await refused('createCustomEmoji with a name that is taken', 400, create);
    const ids = (found) => found.map((one) => one.id);
    same('getCustomEmoji', (await ben.getCustomEmoji(made.id)).name, name);
    same('getCustomEmojiByName', (await ben.getCustomEmojiByName(name)).id, made.id);
    same('getCustomEmojiImageUrl', (await download(ben, ben.getCustomEmojiImageUrl(made.id))).type.split('/')[0], 'image');
    same('getCustomEmojis', ids(await ben.getCustomEmojis(0, 200)).includes(made.id));
    same('getCustomEmojisByNames', ids(await ben.getCustomEmojisByNames([name, 'no_such_emoji'])), [made.id]);
    same('autocompleteCustomEmoji', ids(await ben.autocompleteCustomEmoji(name.slice(0, 6))), [made.id]);
    same('searchCustomEmoji', ids(await ben.searchCustomEmoji(mark)), [made.id]);
    same('searchCustomEmoji for the start', await ben.searchCustomEmoji(mark, {prefix_only: true}), []);
    await refused('deleteCustomEmoji of another', 403, () => ben.deleteCustomEmoji(made.id));
    await ann.deleteCustomEmoji(made.id);
    await refused('getCustomEmoji of a deleted one', 404, () => ben.getCustomEmoji(made.id));
}
