// The page of prompt-rollback: what is live, times in the reader's zone, and actions. Everything can be read without it.
'use strict';

(() => {
  // before the body: buttons need this script
  document.documentElement.classList.add('js');

  const AGAIN = 1000; // the shortest time between two looks
  const SETTLE = 200; // several changes become one look
  const RETRY = 5000; // after an error
  const PRESS = 2000; // the longest press of a button

  const find = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // --- times -------------------------------------------------------------------------------------------------------

  const near = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
  const far = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });

  function localTimes(root) {
    const today = new Date().toDateString();
    for (const time of all('time[datetime]', root)) {
      const at = new Date(time.dateTime);
      if (!Number.isNaN(at.getTime())) {
        time.textContent = (at.toDateString() === today ? near : far).format(at);
      }
    }
  }

  // as the receiver writes it: 42 s, 5 min, 2 h, 3 d
  function spoken(ms) {
    const seconds = Math.floor(ms / 1000);
    const [size, unit] = [[86400, 'd'], [3600, 'h'], [60, 'min']].find(([least]) => seconds >= least) || [1, 's'];
    return `${Math.floor(seconds / size)} ${unit}`;
  }

  function distances(root) {
    const now = Date.now();
    for (const span of all('span[data-at]', root)) {
      const left = Number(span.dataset.at) - now;
      span.textContent = left > 0 ? `in ${spoken(left)}` : `${spoken(-left)} ago`;
    }
  }

  // --- what is said ------------------------------------------------------------------------------------------------

  function say(text, isFault = false) {
    const place = find('#said');
    place.textContent = text;
    place.classList.toggle('fault', isFault);
  }

  function showLive(state, text) {
    const place = find('#live');
    if (place && place.textContent !== text) {
      place.className = state;
      place.textContent = text;
    }
  }

  // --- looking again -----------------------------------------------------------------------------------------------

  // what identifies an element in the old and in the new content
  function keyOf(element) {
    if (!element || !element.closest || !element.closest('main')) return null;
    if (element.id) return '#' + CSS.escape(element.id);
    const row = element.closest('[data-key]');
    const within = row && row !== element ? `[data-key="${CSS.escape(row.dataset.key)}"] ` : '';
    const named = ['data-key', 'data-path', 'data-body', 'href'].filter((name) => element.hasAttribute(name));
    if (named.length) return within + named.map((name) => `[${name}="${CSS.escape(element.getAttribute(name))}"]`).join('');
    return element.tagName === 'SUMMARY' ? `${within}summary` : null;
  }

  function replaceMain(text) {
    const answer = new DOMParser().parseFromString(text, 'text/html');
    const [next, main] = [find('main', answer), find('main')];
    if (!next || !main) return;
    // this page was an error or a sign-in, without navigation and without news; or another tab has signed in anew
    const csrf = (page) => find('meta[name="csrf-token"]', page)?.content;
    const isOver = !answer.body.dataset.live;
    if (!isOver && (!document.body.dataset.live || csrf(answer) !== csrf(document))) {
      location.reload();
      return;
    }
    // what was typed into the form stays
    if (isOver && find('.sign-in', main) && find('.sign-in', next)) return;
    if (isOver) {
      delete document.body.dataset.live;
      showLive('off', 'Not live');
    }
    document.title = answer.title;
    const focused = document.activeElement;
    const key = keyOf(focused);
    const typed = focused && focused.matches('main input') ? [focused.value, focused.selectionStart] : null;
    const opened = all('details[open]', main).map(keyOf);
    const [left, top] = [window.scrollX, window.scrollY];
    document.adoptNode(next);
    localTimes(next);
    distances(next);
    distances(main);
    for (const selector of opened) {
      const details = selector && find(selector, next);
      if (details) details.open = true;
    }
    // a selection stays where nothing has changed
    if (next.isEqualNode(main)) return;
    main.replaceWith(next);
    const again = key && find(key, next);
    if (again) {
      if (typed) {
        again.value = typed[0];
        again.setSelectionRange(typed[1], typed[1]);
      }
      again.focus({ preventScroll: true });
    }
    window.scrollTo(left, top);
  }

  let looked = 0;
  let pressed = 0;
  let planned = 0;
  let round = 0;

  async function look() {
    planned = 0;
    looked = Date.now();
    round += 1;
    const own = round;
    try {
      const answer = await fetch(location.href, {
        credentials: 'same-origin',
        headers: { Accept: 'text/html' },
        cache: 'no-store',
      });
      if (answer.redirected && new URL(answer.url).pathname !== location.pathname) {
        location.assign(answer.url);
        return;
      }
      const text = await answer.text();
      // a later look has begun: its answer is newer
      if (own !== round || find('dialog[open]')) return;
      // a button that is replaced while it is pressed is not clicked
      if (Date.now() - pressed < PRESS) {
        plan(SETTLE);
        return;
      }
      replaceMain(text);
    } catch {
      if (own === round) plan(RETRY);
      return;
    }
    awaited();
  }

  function plan(delay) {
    const at = Math.max(Date.now() + delay, looked + AGAIN);
    if (planned && planned.at <= at) return;
    if (planned) clearTimeout(planned.timer);
    planned = { at, timer: setTimeout(look, at - Date.now()) };
  }

  // something on the page is not known yet
  function awaited() {
    const seconds = Number(find('main').dataset.again);
    if (seconds > 0) plan(seconds * 1000);
  }

  // --- live --------------------------------------------------------------------------------------------------------

  function follow() {
    const path = document.body.dataset.live;
    if (!path || !window.EventSource) return;
    let wasLost = false;
    const source = new EventSource(path);
    source.addEventListener('open', () => {
      showLive('on', 'Live');
      // what changed meanwhile was not heard
      if (wasLost) plan(0);
      wasLost = false;
    });
    source.addEventListener('error', () => {
      wasLost = true;
      const isOver = source.readyState === EventSource.CLOSED;
      showLive('off', isOver ? 'Not live' : 'Reconnecting');
      // the session has ended, or the receiver has too many open pages: the next look tells
      if (isOver) look().then(() => setTimeout(follow, RETRY));
    });
    source.addEventListener('change', () => {
      plan(SETTLE);
      // the order of the list is read once a second
      setTimeout(() => plan(0), SETTLE + AGAIN + 100);
    });
    // anything may have changed, also between the page and this connection
    source.addEventListener('resync', () => {
      showLive('on', 'Live');
      plan(SETTLE);
    });
    source.addEventListener('stale', () => showLive('off', 'Redis cannot be reached'));
    window.addEventListener('pagehide', () => source.close(), { once: true });
  }

  // --- search ------------------------------------------------------------------------------------------------------

  let typing = 0;

  function filter(form) {
    clearTimeout(typing);
    typing = setTimeout(() => {
      const url = new URL(form.action);
      const fields = [...new FormData(form)].filter(([name, value]) => value !== '' && !(name === 'state' && value === 'all'));
      url.search = new URLSearchParams(fields).toString();
      history.replaceState(null, '', url);
      look();
    }, SETTLE);
  }

  // --- actions -----------------------------------------------------------------------------------------------------

  // resolves to the text that was asked for, or null
  function ask(button) {
    const { title, text, yes, no, danger, field, label, required } = button.dataset;
    if (!title) return Promise.resolve('');
    // an element of its own for each question: the close event can arrive after the next question has opened
    const last = find('#question');
    const dialog = last.cloneNode(true);
    last.replaceWith(dialog);
    const [refuse, accept] = all('button', dialog);
    // no submit button: Enter in the text field accepts
    refuse.addEventListener('click', () => dialog.close());
    const [input, frame] = [find('input', dialog), find('#question-label')];
    find('#question-title').textContent = title;
    find('#question-text').textContent = text;
    refuse.textContent = no;
    accept.textContent = yes;
    accept.className = danger ? 'danger' : 'first';
    frame.hidden = !field;
    find('span', frame).textContent = label || '';
    input.value = '';
    input.required = Boolean(field && required);
    return new Promise((resolve) => {
      dialog.addEventListener('close', () => {
        const accepted = dialog.returnValue === 'yes';
        resolve(accepted ? input.value.trim() : null);
        // the answer may have come while the question was open
        plan(0);
      }, { once: true });
      dialog.showModal();
      (field ? input : refuse).focus();
    });
  }

  async function act(button) {
    const given = await ask(button);
    if (given === null) return;
    const body = button.dataset.body ? JSON.parse(button.dataset.body) : {};
    if (button.dataset.field && given) body[button.dataset.field] = given;
    const token = find('meta[name="csrf-token"]');
    const headers = { 'Content-Type': 'application/json', Accept: 'application/json' };
    if (token) headers['X-CSRF-Token'] = token.content;
    button.disabled = true;
    say('Working …');
    try {
      const { method, path, then } = button.dataset;
      const answer = await fetch(path, { method, headers, body: JSON.stringify(body), credentials: 'same-origin' });
      if (then && answer.ok) {
        location.assign(then);
        return;
      }
      const reply = await answer.json().catch(() => ({}));
      if (!answer.ok) {
        say(reply.error ? reply.error.message : `The receiver refused it (${answer.status}).`, true);
      } else if (answer.status === 202) {
        say('Prometheus is asked first. This page shows the result.');
      } else {
        say(reply.message || (reply.unchanged ? 'Nothing changed: that was the state already.' : 'Done.'));
      }
    } catch {
      say('The receiver did not answer. Check whether it was done before you try again.', true);
    } finally {
      button.disabled = false;
      plan(0);
    }
  }

  // --- start -------------------------------------------------------------------------------------------------------

  document.addEventListener('DOMContentLoaded', () => {
    localTimes(document);
    distances(document);
    setInterval(() => distances(document), 10000);
    follow();
    awaited();
    document.addEventListener('click', (event) => {
      const button = event.target.closest && event.target.closest('button[data-path]');
      if (button) act(button);
    });
    for (const kind of ['input', 'change']) {
      document.addEventListener(kind, (event) => {
        const form = event.target.closest && event.target.closest('form[data-filter]');
        if (form) filter(form);
      });
    }
    document.addEventListener('submit', (event) => {
      if (event.target.matches('form[data-filter]')) {
        event.preventDefault();
        filter(event.target);
      }
    });
    document.addEventListener('pointerdown', () => { pressed = Date.now(); });
    for (const kind of ['pointerup', 'pointercancel']) {
      document.addEventListener(kind, () => { pressed = 0; });
    }
    // the browser kept the page as it was, without its connection
    window.addEventListener('pageshow', (event) => {
      if (event.persisted) {
        follow();
        plan(0);
      }
    });
    // while nobody looked, health was not measured
    document.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'visible' && document.body.dataset.live) plan(0);
    });
  });
})();
