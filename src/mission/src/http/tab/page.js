// Signs a person in inside a host application (Teams, Outlook): by the host's word while the directory answers, with the local
// password of this site when it does not, which is what the page is for when there is no uplink.
'use strict';

// The host answers at once or not at all: outside of one nobody does.
const HOST_WAIT_MS = 5000;
const SITE_WAIT_MS = 15000;

const element = (id) => document.getElementById(id);
const site = new URL('../', window.location.href);

function within(ms, promise, what) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(what)), ms);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function post(path, body) {
    const answer = await within(SITE_WAIT_MS, fetch(new URL(path, site), {
        method: 'POST',
        credentials: 'same-origin',
        headers: {'Content-Type': 'application/json', 'X-Requested-With': 'XMLHttpRequest'},
        body: JSON.stringify(body),
    }), 'This site does not answer.');
    if (!answer.ok) {
        const told = await answer.json().catch(() => ({}));
        throw Object.assign(new Error(told.message || `This site answered ${answer.status}.`), {id: told.id});
    }
}

// A link to a post opens it; the host hands on what the link named.
function open(asked) {
    const found = /^post_([a-z0-9]{26})$/.exec(asked || '');
    window.location.replace(new URL(found ? `_redirect/pl/${found[1]}` : '', site));
}

async function byHost() {
    const host = window.microsoftTeams;
    if (!host || window.parent === window) {
        throw new Error('This page is not shown by Teams or Outlook.');
    }
    const away = 'The host application does not answer.';
    await within(HOST_WAIT_MS, host.app.initialize(JSON.parse(document.body.dataset.hosts)), away);
    host.app.notifyAppLoaded();
    const context = await within(HOST_WAIT_MS, host.app.getContext(), away);
    const noToken = 'Microsoft’s sign-in cannot be reached.';
    const token = await within(HOST_WAIT_MS, host.authentication.getAuthToken(), noToken).catch(() => {
        throw new Error(noToken);
    });
    await post('holdfast/tab/sign-in', {token});
    host.app.notifySuccess();
    return context.page && context.page.subPageId;
}

function offerLocal(why) {
    element('state').textContent = `${why} Sign in with your password at this site.`;
    const form = element('local');
    form.hidden = false;
    element('name').focus();
    form.addEventListener('submit', async (event) => {
        event.preventDefault();
        element('refused').textContent = '';
        try {
            await post('api/v4/users/login', {
                login_id: element('name').value,
                password: element('password').value,
                token: element('code').value,
            });
            open();
        } catch (error) {
            if (error.id === 'mfa.validate_token.authenticate.app_error') {
                element('second').hidden = false;
                element('code').focus();
            }
            element('refused').textContent = error.message;
        }
    });
}

byHost().then(open, (error) => offerLocal(error.message));
