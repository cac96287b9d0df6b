// Files: uploads, downloads, previews.

import {randomBytes} from 'node:crypto';

import {PNG, download, form, refused, same} from './cast.mjs';

export async function run({ann, ben, channel, someone}) {
    const content = randomBytes(50_000);
    const up = async (name, bytes) => (await ann.uploadFile(form({channel_id: channel}, {files: [name, bytes]}))).file_infos[0];
    const info = await up('Skizze größer.bin', content);
    same('uploadFile', [info.name, info.size], ['Skizze größer.bin', content.length]);
    const get = (client, url) => download(client, url);
    same('a file before it is posted is nobody else\'s', (await get(ben, ben.getFileUrl(info.id))).status, 403);
    const picture = await up('red.png', PNG);
    same('uploadFile of a picture', [picture.width, picture.height], [64, 64]);
    const post = await ann.createPost({channel_id: channel, message: 'two files', file_ids: [info.id, picture.id]});
    same('a post knows its files', post.metadata.files.map((file) => file.id), [info.id, picture.id]);
    same('getFileInfosForPost', (await ben.getFileInfosForPost(post.id)).length, 2);
    same('getFileUrl', (await get(ben, ben.getFileUrl(info.id))).bytes.equals(content));
    for (const name of ['getFileThumbnailUrl', 'getFilePreviewUrl']) {
        const {status, type} = await get(ben, ben[name](picture.id));
        same(name, [status, type.split('/')[0]], [200, 'image']);
    }
    const {client: stranger} = await someone('mal');
    same('a file of a channel that one is not in', (await get(stranger, stranger.getFileUrl(info.id))).status, 403);
    await refused('getFilePublicLink', 403, () => ben.getFilePublicLink(info.id));
}
