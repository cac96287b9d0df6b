// Slash commands, webhooks, buttons and dialogs.

import {listen, program, refused, same} from './cast.mjs';

const answers = {
    '/command': {response_type: 'in_channel', text: 'Sunny'},
    '/outgoing': {text: 'Heard you'},
    '/button': {ephemeral_text: 'Pressed'},
};

export async function run(scene) {
    const other = await program((path) => answers[path] ?? {});
    await commands(scene, other);
    await incoming(scene);
    await outgoing(scene, other);
    await buttonsAndDialogs(scene, other);
    other.close();
}

async function commands({root, ann, team, channel}, {url, called}) {
    const command = {team_id: team, trigger: 'weather', method: 'P', url: `${url}/command`, auto_complete: true};
    await refused('addCommand by a user', 403, () => ann.addCommand(command));
    const made = await root.addCommand(command);
    same('getCustomTeamCommands', (await root.getCustomTeamCommands(team)).map((one) => one.id), [made.id]);
    same('getCommandsList', (await ann.getCommandsList(team)).some((one) => one.trigger === 'shrug'));
    same('getAutocompleteCommandsList', (await ann.getAutocompleteCommandsList(team)).some((one) => one.trigger === 'weather'));
    const offered = await ann.getCommandAutocompleteSuggestionsList('/weath', team, {channel_id: channel, team_id: team});
    same('getCommandAutocompleteSuggestionsList', offered.map((one) => one.Complete), ['weather']);
    const ears = await listen(ann);
    await ann.executeCommand('/weather tomorrow', {channel_id: channel, team_id: team});
    const {headers, body} = await called('/command');
    same('executeCommand asks the program', [body.includes('text=tomorrow'), headers.authorization], [true, `Token ${made.token}`]);
    await ears.hear('posted', (data) => data.post.message === 'Sunny');
    ears.close();
    await refused('executeCommand of none', 404, () => ann.executeCommand('/nosuchcommand', {channel_id: channel, team_id: team}));
    await root.deleteCommand(made.id);
}

async function incoming({root, ann, team, channel}) {
    await refused('createIncomingWebhook by a user', 403, () => ann.createIncomingWebhook({channel_id: channel}));
    const made = await root.createIncomingWebhook({channel_id: channel, display_name: 'In', description: 'from outside'});
    same('getIncomingWebhooks', (await root.getIncomingWebhooks(team)).map((one) => one.id), [made.id]);
    same('getIncomingWebhook', (await root.getIncomingWebhook(made.id)).description, 'from outside');
    await root.updateIncomingWebhook({...made, display_name: 'In 2'});
    same('updateIncomingWebhook', (await root.getIncomingWebhook(made.id)).display_name, 'In 2');
    const ears = await listen(ann);
    const answer = await fetch(`${root.getUrl()}/hooks/${made.id}`, {
        method: 'post', headers: {'Content-Type': 'application/json'}, body: JSON.stringify({text: 'Gate is open'})});
    same('a hook is called', await answer.text(), 'ok');
    await ears.hear('posted', (data) => data.post.message === 'Gate is open');
    ears.close();
    await root.removeIncomingWebhook(made.id);
    await refused('getIncomingWebhook of none', 404, () => root.getIncomingWebhook(made.id));
}

async function outgoing({root, ann, team, channel}, {url, called}) {
    const made = await root.createOutgoingWebhook({team_id: team, channel_id: channel, display_name: 'Out', trigger_words: ['hark'],
        trigger_when: 0, callback_urls: [`${url}/outgoing`], content_type: 'application/json'});
    same('getOutgoingWebhooks', (await root.getOutgoingWebhooks('', team)).map((one) => one.id), [made.id]);
    await refused('getOutgoingWebhook by a user', 403, () => ann.getOutgoingWebhook(made.id));
    await root.updateOutgoingWebhook({...made, description: 'changed'});
    same('updateOutgoingWebhook', (await root.getOutgoingWebhook(made.id)).description, 'changed');
    const {token} = await root.regenOutgoingHookToken(made.id);
    same('regenOutgoingHookToken', token === made.token, false);
    const ears = await listen(ann);
    await ann.createPost({channel_id: channel, message: 'hark who is there'});
    const {body} = await called('/outgoing');
    same('the program is called', [body.token, body.trigger_word, body.text], [token, 'hark', 'hark who is there']);
    await ears.hear('posted', (data) => data.post.message === 'Heard you');
    ears.close();
    await root.removeOutgoingWebhook(made.id);
    await refused('getOutgoingWebhook of none', 404, () => root.getOutgoingWebhook(made.id));
}

async function buttonsAndDialogs({root, ann, annId, team, channel}, {url, called}) {
    const action = {id: 'press', name: 'Press', type: 'button', integration: {url: `${url}/button`, context: {n: 7}}};
    const post = await root.createPost({channel_id: channel, message: '', props: {attachments: [{text: 'A button', actions: [action]}]}});
    const shown = (await ann.getPost(post.id)).props.attachments[0].actions[0];
    same('a button keeps its address to itself', 'integration' in shown, false);
    const ears = await listen(ann);
    const pressed = await ann.doPostAction(post.id, shown.id);
    const {body} = await called('/button');
    same('doPostAction asks the program', [body.user_id, body.context, body.trigger_id === pressed.trigger_id], [annId, {n: 7}, true]);
    await ears.hear('ephemeral_message', (data) => data.post.message === 'Pressed');
    ears.close();
    await ann.submitInteractiveDialog({url: `${url}/dialog`, callback_id: 'why', state: '', user_id: annId, channel_id: channel,
        team_id: team, submission: {why: 'because'}, cancelled: false});
    const {body: sent} = await called('/dialog');
    same('submitInteractiveDialog', [sent.type, sent.submission], ['dialog_submission', {why: 'because'}]);
}
