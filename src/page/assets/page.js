// Live pages, local times, actions. Pages can be read without it.
'use strict';

(() => {
  // before the body: buttons need this script
  document.documentElement.classList.add('js');

  const AGAIN = 1000; // the shortest time between two looks
  const SETTLE = 200; // after a key, or a press
  const LATER = 30000; // what other prompts change here
  const RETRY = 5000; // after an error
  const PRESS = 2000; // the longest press of a button
  const AIM = 500; // aiming at a new button takes longer
  const PATIENCE = 10000; // the longest wait for an answer, and between two looks without news
  const FIRST = 5000; // a stream begins with an event
  const QUIET = 40000; // it then sends one every 15 s

  const find = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const listen = (kinds, then, early) => kinds.split(' ').forEach((kind) => document.addEventListener(kind, then, early));
  const again = () => location.replace(location.pathname + location.search);
  // a redirect, to a proxy's sign-in, has the status 0
  const read = () => fetch(location.href, {
    headers: { Accept: 'text/html' },
    cache: 'no-store',
    redirect: 'manual',
    signal: AbortSignal.timeout(PATIENCE),
  });

  // --- times ---

  const near = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });
  const far = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });

  let ahead = 0; // of the receiver's clock
  let age; // of the order

  function setClock({ body }) {
    if (body.dataset.now) ahead = Date.now() - body.dataset.now;
    age = body.dataset.age;
  }

  function times(root) {
    const today = new Date().toDateString();
    for (const time of all('time[datetime]', root)) {
      const at = new Date(time.dateTime);
      if (isNaN(at)) continue;
      const text = (at.toDateString() === today ? near : far).format(at);
      if (time.textContent !== text) time.textContent = text;
    }
    const now = Date.now();
    for (const span of all('[data-at],[data-left]', root)) {
      const { at, left } = span.dataset;
      const ms = (at ? Number(at) + ahead : (span.ends ??= now + left * 1000)) - now;
      const text = spoken(Math.max(left ? ms : Math.abs(ms), 0));
      span.textContent = left ? `${text} left` : ms < 1000 ? `${text} ago` : `in ${text}`;
    }
  }

  // as the receiver writes it
  function spoken(ms) {
    const seconds = Math.floor(ms / 1000);
    const [size, unit] = [[86400, 'd'], [3600, 'h'], [60, 'min']].find(([least]) => seconds >= least) || [1, 's'];
    return `${Math.floor(seconds / size)} ${unit}`;
  }

  // --- what is said ---

  function say(text, isFault = false) {
    const place = find('#said');
    place.textContent = text;
    place.classList.toggle('fault', isFault);
  }

  function showLive(text) {
    const place = find('#live');
    if (place && place.textContent !== text) {
      place.className = text === 'Live' ? 'on' : 'off';
      place.textContent = text;
    }
  }

  // --- looking again ---

  // what identifies an element in both contents
  function keyOf(element) {
    if (!element?.closest('main')) return null;
    if (element.id) return '#' + CSS.escape(element.id);
    const named = ['data-key', 'data-path', 'data-body', 'href'].filter((name) => element.hasAttribute(name));
    if (named.length) return within(element) + named.map((name) => `[${name}="${CSS.escape(element.getAttribute(name))}"]`).join('');
    return element.tagName === 'SUMMARY' ? `${within(element)}summary` : null;
  }

  // two rows can have the same menu
  function within(element) {
    const row = element.parentElement.closest('[data-key]');
    return row ? `${within(row)}[data-key="${CSS.escape(row.dataset.key)}"] ` : '';
  }

  // what a click there would do
  function placeOf(button) {
    const { left, top } = button.getBoundingClientRect();
    return [button.dataset.path, button.dataset.body, left, top].join();
  }

  // a button that is new here takes no click yet
  function settle(main, before) {
    for (const button of all('button.act', main).filter((one) => !before.has(placeOf(one)))) {
      button.classList.add('fresh');
      setTimeout(() => button.classList.remove('fresh'), AIM);
    }
  }

  function replaceMain(text) {
    const answer = new DOMParser().parseFromString(text, 'text/html');
    const [next, main] = [find('main', answer), find('main')];
    const isOver = !answer.body.dataset.live;
    const differs = (selector) => find(selector, answer)?.outerHTML !== find(selector)?.outerHTML;
    // another release; rarely: replicas are replaced one by one
    const isOld = performance.now() > 60000 && (differs('head script') || differs('link[rel="stylesheet"]'));
    // this was an error or a sign-in; or another tab has signed in anew
    if (!isOver && (isOld || !document.body.dataset.live || differs('meta[name="csrf-token"]'))) {
      again();
      return;
    }
    setClock(answer);
    if (isOver) {
      // what was typed into the form stays
      if (find('.sign-in', main) && find('.sign-in', next)) return;
      delete document.body.dataset.live;
      showLive('Not live');
    }
    document.title = answer.title;
    const focused = document.activeElement;
    const key = keyOf(focused);
    const typed = focused?.matches('main input') ? [focused.value, focused.selectionStart] : null;
    const opened = all('details[open]', main).map(keyOf);
    const { scrollX, scrollY } = window;
    document.adoptNode(next);
    times(next);
    times(main);
    for (const selector of opened) {
      const details = selector && find(selector, next);
      if (details) details.open = true;
    }
    // a selection stays where nothing has changed
    if (next.isEqualNode(main)) return;
    const isInside = main.contains(focused);
    const before = new Set(all('button.act:not(.fresh)', main).map(placeOf));
    main.replaceWith(next);
    const same = key && find(key, next);
    if (same && typed) {
      same.value = typed[0];
      same.setSelectionRange(typed[1], typed[1]);
    }
    // else Tab would begin at the top
    if (isInside) (same || next).focus({ preventScroll: true });
    window.scrollTo(scrollX, scrollY);
    settle(next, before);
  }

  let looked = 0;
  let pressed = 0;
  let chosen = 0;
  let heard;
  let soon;
  let planned = null;
  let round = 0;

  async function look() {
    clearTimeout(planned?.timer);
    planned = null;
    // it looks when it is seen again
    if (document.hidden && document.body.dataset.live) return;
    looked = Date.now();
    const own = ++round;
    try {
      const answer = await read();
      const text = await answer.text();
      // a later look has begun
      if (own !== round || find('dialog[open]')) return;
      // what is replaced is not clicked, and an open menu closes
      if (Date.now() < Math.max(pressed + PRESS, chosen + PATIENCE)) return plan(SETTLE);
      if (text.includes('<main')) replaceMain(text);
      // a proxy's: its sign-in has ended, or it reaches no receiver
      else if ([0, 401, 403].includes(answer.status)) again();
      else throw 0;
    } catch {
      if (own === round) plan(RETRY);
      return;
    }
    awaited();
  }

  function plan(delay, pause = AGAIN) {
    const at = Math.max(Date.now() + delay, looked + pause);
    if (planned?.at <= at) return;
    clearTimeout(planned?.timer);
    planned = { at, timer: setTimeout(look, at - Date.now()) };
  }

  // something is not known yet, or ends by itself
  function awaited() {
    const main = find('main');
    const seconds = Number(main.dataset.again);
    if (seconds > 0) plan(seconds * 1000);
    // older than the news
    if (looked - age < heard) soon();
    const left = all('[data-left]', main).map((one) => one.dataset.left * 1000);
    if (left.length) plan(Math.min(...left, 864e5) + AGAIN);
  }

  // --- live ---

  let source = null;
  let silence = 0;

  // another event is expected within this time
  function expect(time) {
    clearTimeout(silence);
    silence = setTimeout(() => {
      // a proxy buffers, or the receiver hangs
      leave();
      plan(0);
      follow(PATIENCE);
    }, time);
  }

  function leave() {
    clearTimeout(silence);
    source?.close();
    source = null;
    showLive('Not live');
  }

  // a hidden page leaves its connection to others: browsers allow six
  function follow(patience = FIRST) {
    const path = document.body.dataset.live;
    if (!path || source || document.hidden) return;
    const own = new EventSource(path);
    source = own;
    expect(patience);
    const on = (name, then) => own.addEventListener(name, ({ data }) => {
      expect(QUIET);
      then(JSON.parse(data || '{}'));
    });
    own.addEventListener('open', () => expect(patience));
    own.addEventListener('error', () => {
      if (own.readyState !== EventSource.CLOSED) return showLive('Reconnecting');
      // signed out, or too many pages: the next look tells
      leave();
      look().then(() => setTimeout(follow, PATIENCE));
    });
    on('keep-alive', () => {});
    // not all pages at once
    const news = ({ spread = 0 }) => {
      heard = Date.now();
      soon = () => plan(Math.random() * spread, Math.max(AGAIN, spread));
      soon();
    };
    on('change', (what) => (find('main').dataset.about ?? what.prompt) === what.prompt ? news(what) : plan(LATER));
    // anything may have changed
    on('resync', (what) => {
      showLive('Live');
      news(what);
    });
    on('stale', () => showLive('Redis cannot be reached'));
  }

  // --- search ---

  let typing = 0;

  function filter(form) {
    clearTimeout(typing);
    typing = setTimeout(() => {
      const url = new URL(form.action);
      const fields = [...new FormData(form)].filter(([name, value]) => value && (name !== 'state' || value !== 'all'));
      url.search = new URLSearchParams(fields);
      history.replaceState(null, '', url);
      look();
    }, SETTLE);
  }

  // --- actions ---

  // the field with the text that was asked for, or null
  async function ask(button) {
    const { title, text, yes, no, danger, field, label, required } = button.dataset;
    if (!title) return { value: '' };
    // one element per question: it can close after the next one has opened
    const last = find('#question');
    const dialog = last.cloneNode(true);
    last.replaceWith(dialog);
    const [heading, about, frame, input, refuse, accept] = all('h2,p,label,input,button', dialog);
    // no submit button: Enter accepts
    refuse.addEventListener('click', () => dialog.close());
    // the same question again: what was typed stays
    if (heading.textContent !== title) input.value = '';
    heading.textContent = title;
    about.textContent = text;
    refuse.textContent = no;
    accept.textContent = yes;
    accept.className = danger ? 'danger' : 'first';
    frame.hidden = !field;
    find('span', frame).textContent = label;
    input.required = required;
    return new Promise((resolve) => {
      dialog.addEventListener('close', () => {
        resolve(dialog.returnValue ? input : null);
        // the answer may have come while the question was open
        plan(0);
      }, { once: true });
      dialog.showModal();
      // a second Enter moves no traffic
      (field && !danger ? input : refuse).focus();
    });
  }

  const acting = new Set();

  async function act(button) {
    const { method, path, body: known, field, then } = button.dataset;
    const own = path + known;
    if (acting.has(own)) return;
    const input = await ask(button);
    if (!input) return;
    const [body, given] = [JSON.parse(known || '{}'), input.value.trim()];
    if (given) body[field] = given;
    const [type, token] = ['application/json', find('meta[name="csrf-token"]')?.content ?? ''];
    const headers = { 'Content-Type': type, Accept: type, 'X-CSRF-Token': token };
    acting.add(own);
    // not disabled: it would lose the focus
    button.setAttribute('aria-disabled', 'true');
    say('Working …');
    try {
      const signal = AbortSignal.timeout(PATIENCE);
      const answer = await fetch(path, { method, headers, body: JSON.stringify(body), redirect: 'manual', signal });
      if (then && answer.ok) {
        location.assign(then);
        return;
      }
      if (answer.ok) input.value = '';
      const reply = await answer.json().catch(() => ({}));
      if ([0, 401].includes(answer.status)) {
        say('Nothing was done: your sign-in has ended. Sign in again.', true);
      } else if (!answer.ok) {
        say(reply.error?.message ?? `The receiver refused it (${answer.status}).`, true);
      } else if (answer.status === 202) {
        say('The receiver queries Prometheus first. This page shows the result.');
      } else {
        say(reply.message || (reply.unchanged ? 'Nothing changed: this was already the state.' : 'Done.'));
      }
    } catch {
      say('The receiver did not answer. Check whether the action took effect before you try again.', true);
    } finally {
      acting.delete(own);
      button.removeAttribute('aria-disabled');
      plan(0);
    }
  }

  // --- start ---

  document.addEventListener('DOMContentLoaded', () => {
    setClock(document);
    times(document);
    setInterval(times, 10000, document);
    follow();
    awaited();
    // a link of another site comes without the cookie
    if (find('.sign-in') && !find('#fault')) {
      read().then((answer) => answer.status !== 401 && again(), () => {});
    }
    // a second click is not for what has just appeared
    listen('click', (event) => {
      if (event.detail > 1 && event.target.closest('button, a')) {
        event.preventDefault();
        event.stopPropagation();
      }
    }, true);
    listen('click', (event) => {
      const button = event.target.closest('button[data-path]');
      if (button) act(button);
    });
    listen('input change submit compositionend', (event) => {
      const form = event.target.closest('form[data-filter]');
      if (!form) return;
      event.preventDefault();
      // a word is not complete yet
      chosen = event.isComposing ? Date.now() : 0;
      if (!chosen) filter(form);
    });
    listen('pointerdown', () => { pressed = Date.now(); });
    listen('pointerup pointercancel', () => { pressed = 0; });
    listen('pointerdown keydown change focusout', ({ target, type }) => {
      if (target.closest('main select')) chosen = type.endsWith('down') ? Date.now() : 0;
    });
    const isSeen = () => {
      if (!document.body.dataset.live) return;
      // health was not measured meanwhile
      plan(0);
      follow();
    };
    window.addEventListener('pagehide', leave);
    // kept by the browser without its connection
    window.addEventListener('pageshow', ({ persisted }) => persisted && isSeen());
    listen('visibilitychange', () => (document.hidden ? leave : isSeen)());
  });
})();
