'use strict';
(() => {
  const { map, words, sites } = JSON.parse(document.getElementById('data').textContent);
  const { head, snapshots, tags } = map;
  const at = (id) => document.getElementById(id);
  const PER_WINDOW = head.window / head.hugepage, COLUMNS = 32, CELL = 9, HEADLINE = 6;
  const ROWS = Math.ceil(PER_WINDOW / COLUMNS);

  const bytes = (n) => {
    for (const [unit, size] of [['GiB', 2 ** 30], ['MiB', 2 ** 20], ['KiB', 1024]]) {
      if (n >= size) return (n / size).toPrecision(3) + ' ' + unit;
    }
    return n + ' B';
  };
  const hex = (n) => '0x' + n.toString(16);
  const make = (name, text, parent) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };

  // ---- colours ----

  const PARTS = [
    ['live', 'live', '#2b8a3e'], ['cached', 'cached', '#74b816'], ['in_transfer', 'in transfer', '#c0eb75'],
    ['free_in_spans', 'free in spans', '#fab005'], ['free_granules', 'free granules', '#e8590c'],
    ['returned', 'returned', '#dee2e6'], ['metadata', 'metadata', '#868e96'], ['stranded', 'stranded', '#c92a2a'],
  ];
  const CLEAN = '#e9ecef', IDLE = '#ffd8a8', BLOCK = '#5c7080', NEUTRAL = '#adb5bd';
  const mix = (a, b, t) => 'rgb(' + a.map((v, i) => Math.round(v + (b[i] - v) * t)).join(',') + ')';
  const ramp = (stops, t) => {
    const place = Math.max(0, Math.min(0.9999, t)) * (stops.length - 1), i = Math.floor(place);
    return mix(stops[i], stops[i + 1], place - i);
  };
  const FULLNESS = [[215, 48, 39], [254, 224, 139], [26, 152, 80]];
  const AGES = [[24, 100, 171], [165, 216, 255], [150, 140, 130]];
  const ageOf = (ms) => Math.log10(1 + ms / 10) / 4;
  const classColour = (c) => `hsl(${Math.round(c * 137.5) % 360} 55% ${44 + (c % 3) * 9}%)`;
  const tagColour = (t) => (t === 0 ? NEUTRAL : `hsl(${Math.round(t * 137.5 + 40) % 360} 60% 50%)`);
  const PAINT = {
    class: (cell, item) => (item.block ? BLOCK : classColour(item.c)),
    occupancy: (cell, item) => ramp(FULLNESS, item.block ? 1 : item.live / item.objects),
    age: (cell, item) => (cell.idle === null ? NEUTRAL : ramp(AGES, ageOf(cell.idle))),
    tag: (cell) => tagColour(cell.tag),
  };

  // ---- the model of one snapshot: cells of a hugepage each, at places in units of granules ----

  const models = new Map();
  const modelOf = (index) => {
    if (!models.has(index)) models.set(index, build(snapshots[index], words[index], sites[index]));
    return models.get(index);
  };
  function build(snapshot, said, siteLines) {
    const cells = [], windows = [];
    const uses = new Map(said.uses.map((use, i) => [use.at, { ...use, lines: siteLines[i] }]));
    snapshot.windows.forEach((window, w) => {
      const top = w * (ROWS * CELL + HEADLINE) + HEADLINE;
      windows.push({ y: top, text: `window ${hex(window.base)}, ${bytes(head.window)}` });
      let carried = 0, next = 0;
      for (const page of window.hugepages) {
        if (page.h !== next) carried = 0;
        next = page.h + page.n;
        for (let i = 0; i < page.n; i++) {
          const h = page.h + i;
          const x = (h % COLUMNS) * CELL, y = top + Math.floor(h / COLUMNS) * CELL;
          const address = window.base + h * head.hugepage;
          const use = uses.get(address) || null;
          const free = BigInt('0x' + page.free), clean = BigInt('0x' + page.clean);
          const cell = {
            x, y, h, address, use, free, clean, items: [], idle: page.idle_ms ?? null, sparse: page.sparse,
            advised: page.advised, returned: page.returned, tag: 0,
          };
          if (use) {
            if (carried > 0) {
              const n = Math.min(64, carried);
              carried -= n;
              cell.items.push({ block: true, g: 0, n, continued: true });
            }
            for (const [g, c, taken, cached, waiting, flags, generation] of page.spans) {
              const [size, n, objects] = head.classes[c];
              const live = taken - cached - waiting;
              cell.items.push({ g, n, c, size, objects, live, cached, waiting, flags, generation });
            }
            for (const [g, granules] of page.blocks) {
              const n = Math.min(granules, 64 - g);
              carried += granules - n;
              cell.items.push({ block: true, g, n, granules });
            }
            cell.items.sort((a, b) => a.g - b.g);
            const byTag = new Map();
            for (const [, tag, size] of use.sites) byTag.set(tag, (byTag.get(tag) || 0) + size);
            let most = 0;
            for (const [tag, size] of byTag) if (size > most) [most, cell.tag] = [size, tag];
          } else carried = 0;
          cells.push(cell);
        }
      }
    });
    let y = snapshot.windows.length * (ROWS * CELL + HEADLINE);
    for (const { mapping, bytes: length } of snapshot.mappings) {
      y += HEADLINE;
      windows.push({ y, text: `a block of ${bytes(length)} with a mapping of its own, at ${hex(mapping)}` });
      for (let i = 0; i * head.hugepage < length; i++) {
        const live = Math.min(head.hugepage, length - i * head.hugepage), n = Math.ceil(live / head.granule);
        cells.push({
          x: (i % COLUMNS) * CELL, y: y + Math.floor(i / COLUMNS) * CELL, h: i, address: mapping + i * head.hugepage,
          use: { live, free_in_spans: 0, free_granules: 0, under_used: false, sites: [], lines: [] },
          free: 0n, clean: 0n, idle: null, sparse: true, advised: false, returned: 0, tag: 0,
          items: [{ block: true, g: 0, n, granules: n, continued: i > 0 }],
        });
      }
      y += Math.ceil(length / head.hugepage / COLUMNS) * CELL;
    }
    return { cells, windows, used: cells.filter((cell) => cell.use) };
  }

  const more = (count) => `… and ${count} more`;

  // ---- the picture ----

  const canvas = at('map'), context = canvas.getContext('2d');
  const view = { x: 0, y: 0, zoom: 4 };
  let frame = snapshots.length - 1, chosen = null, chosenItem = null, colour = 'class', pending = false;

  const draw = () => {
    if (!pending) {
      pending = true;
      requestAnimationFrame(() => { pending = false; paint(); });
    }
  };
  const toScreen = (x, y) => [(x - view.x) * view.zoom, (y - view.y) * view.zoom];
  const toWorld = (x, y) => [x / view.zoom + view.x, y / view.zoom + view.y];
  const size = () => [canvas.clientWidth, canvas.clientHeight];

  // An aligned run of up to 8 granules lies in one row of its hugepage, a longer one fills rows.
  const pieces = (g, n) => {
    const list = [];
    while (n > 0) {
      const column = g % 8, length = Math.min(n, 8 - column);
      list.push([column, Math.floor(g / 8), length]);
      g += length;
      n -= length;
    }
    return list;
  };

  function paint() {
    const [width, height] = size(), ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const model = modelOf(frame), zoom = view.zoom, near = zoom * 8 > 14;
    context.font = '12px system-ui, sans-serif';
    context.textBaseline = 'middle';
    for (const { text, y } of model.windows) {
      const [sx, sy] = toScreen(0, y - HEADLINE / 2);
      if (sy > -20 && sy < height + 20) {
        context.fillStyle = '#495057';
        context.fillText(text, Math.max(4, sx), sy);
      }
    }
    for (const cell of model.cells) {
      const [sx, sy] = toScreen(cell.x, cell.y), side = 8 * zoom;
      if (sx > width || sy > height || sx + side < 0 || sy + side < 0) continue;
      if (!cell.use) {
        context.fillStyle = cell.clean === cell.free ? CLEAN : IDLE;
        context.fillRect(sx, sy, side, side);
      } else if (near) paintCell(cell, sx, sy, zoom);
      else {
        context.fillStyle = farColour(cell);
        context.fillRect(sx, sy, side, side);
      }
      if (chosen && cell.address === chosen.address) {
        context.strokeStyle = '#000';
        context.lineWidth = 2;
        context.strokeRect(sx - 1.5, sy - 1.5, side + 3, side + 3);
      }
    }
    at('scale').textContent = `1 granule (${bytes(head.granule)}) is ${zoom.toFixed(zoom < 3 ? 1 : 0)} pixels`;
    Object.assign(canvas.dataset, { zoom: zoom.toFixed(3), frame, colour, chosen: chosen ? hex(chosen.address) : '' });
  }

  // From afar a hugepage has the colour of most of it.
  function farColour(cell) {
    if (colour === 'occupancy') return ramp(FULLNESS, cell.use.live / head.hugepage);
    let most = null;
    const weights = new Map();
    for (const item of cell.items) {
      const shade = PAINT[colour](cell, item);
      weights.set(shade, (weights.get(shade) || 0) + item.n);
      if (most === null || weights.get(shade) > weights.get(most)) most = shade;
    }
    return most || NEUTRAL;
  }

  function paintCell(cell, sx, sy, zoom) {
    for (let g = 0; g < 64; g++) {
      const bit = 1n << BigInt(g);
      context.fillStyle = cell.free & bit ? (cell.clean & bit ? CLEAN : IDLE) : '#ced4da';
      context.fillRect(sx + (g % 8) * zoom, sy + Math.floor(g / 8) * zoom, zoom + 0.3, zoom + 0.3);
    }
    for (const item of cell.items) {
      const shade = PAINT[colour](cell, item);
      for (const [column, row, length] of pieces(item.g, item.n)) {
        const [x, y, w] = [sx + column * zoom, sy + row * zoom, length * zoom];
        context.fillStyle = shade;
        context.fillRect(x, y, w, zoom);
        if (zoom > 12 && !item.block) {
          // How full, as the height of a bar at the span's end.
          const part = item.live / item.objects;
          context.fillStyle = '#0004';
          context.fillRect(x + w - zoom * 0.16, y + zoom * (1 - part), zoom * 0.16, zoom * part);
        }
        if (zoom > 4) {
          context.strokeStyle = cell.use && item === chosenItem ? '#000' : '#fff';
          context.lineWidth = item === chosenItem ? 2.5 : 1;
          context.strokeRect(x + 0.5, y + 0.5, w - 1, zoom - 1);
        }
        if (zoom > 34) {
          context.fillStyle = '#fff';
          context.font = '11px system-ui, sans-serif';
          const text = item.block ? (item.continued ? '…' : bytes(item.granules * head.granule)) : `${item.size} B`;
          context.fillText(text, x + 4, y + 10, w - 8);
          if (!item.block) context.fillText(`${item.live}/${item.objects}`, x + 4, y + 24, w - 8);
        }
      }
    }
  }

  const cellAt = (x, y) => modelOf(frame).cells.find((c) => x >= c.x && x < c.x + 8 && y >= c.y && y < c.y + 8);
  const itemAt = (cell, x, y) => {
    const g = Math.floor(y - cell.y) * 8 + Math.floor(x - cell.x);
    return cell.items.find((item) => g >= item.g && g < item.g + item.n) || null;
  };

  function show(x0, y0, x1, y1, top) {
    const [width, height] = size();
    view.zoom = Math.min(120, width / (x1 - x0 + 2), height / (y1 - y0 + 2));
    view.x = (x0 + x1) / 2 - width / view.zoom / 2;
    // What is not as tall as the picture stands at its top.
    const spare = height / view.zoom - (y1 - y0);
    view.y = y0 - Math.min(spare / 2, top ? 1 : spare);
    draw();
  }
  function fit(cells) {
    if (!cells.length) return;
    const xs = cells.map((c) => c.x), ys = cells.map((c) => c.y);
    show(Math.min(...xs), Math.min(...ys) - HEADLINE, Math.max(...xs) + 8, Math.max(...ys) + 8, true);
  }
  function zoomBy(factor, sx, sy) {
    const [wx, wy] = toWorld(sx, sy);
    view.zoom = Math.max(0.2, Math.min(160, view.zoom * factor));
    view.x = wx - sx / view.zoom;
    view.y = wy - sy / view.zoom;
    draw();
  }
  function choose(cell, item) {
    chosen = cell;
    chosenItem = item;
    describe();
    draw();
  }

  // ---- words ----

  function describe() {
    const here = at('here');
    here.textContent = '';
    if (!chosen) {
      make('p', 'Click on a hugepage.', here);
      return;
    }
    const cell = chosen;
    make('p', `Hugepage ${cell.h} of its window, at ${hex(cell.address)}`, here);
    if (!cell.use) {
      const state = cell.clean === cell.free ? (cell.returned ? 'given back to the system' : 'never touched') : 'with memory behind it';
      make('p', `Free, ${state}.`, here);
      return;
    }
    const use = cell.use;
    const facts = [
      `${bytes(use.live)} alive`, `${bytes(use.free_in_spans)} free in spans`,
      `${bytes(use.free_granules)} free granules`, cell.sparse ? 'for large objects' : 'for small objects',
    ];
    if (cell.idle !== null) facts.push(`something came home ${(cell.idle / 1000).toFixed(1)} s ago`);
    if (cell.advised) facts.push('the system was asked for a large page');
    make('p', facts.join(', ') + '.', here);
    if (use.lines.length) {
      make('p', use.under_used ? 'Kept alive by:' : 'Held by:', here);
      const list = make('ul', undefined, here);
      use.lines.forEach((line) => make('li', line, list));
      if (use.sites.length > use.lines.length) make('li', more(use.sites.length - use.lines.length), list);
    }
    const table = make('table', undefined, here);
    const headRow = make('tr', undefined, table);
    ['at', 'what', 'live', 'cached', 'in transfer', 'free', 'full'].forEach((name) => make('th', name, headRow));
    for (const item of cell.items) {
      const row = make('tr', undefined, table);
      if (item === chosenItem) row.className = 'chosen';
      const what = item.block
        ? item.continued ? 'a block from before, on' : `a block of ${bytes(item.granules * head.granule)}`
        : `${item.objects} × ${item.size} B${item.flags & 1 ? ', owned' : ''}${item.flags & 2 ? ', listed' : ''}`;
      const cellsOf = item.block
        ? [hex(item.g), what, '', '', '', '', '100 %']
        : [hex(item.g), what, item.live, item.cached, item.waiting,
          item.objects - item.live - item.cached - item.waiting, Math.round(100 * item.live / item.objects) + ' %'];
      cellsOf.forEach((text) => make('td', String(text), row));
    }
  }

  function legend() {
    const list = at('legend');
    list.textContent = '';
    const add = (shade, text) => {
      const entry = make('span', undefined, list);
      make('i', undefined, entry).style.background = shade;
      entry.append(text);
    };
    if (colour === 'class') {
      const there = new Set();
      modelOf(frame).used.forEach((cell) => cell.items.forEach((item) => item.block || there.add(item.c)));
      [...there].sort((a, b) => a - b).forEach((c) => add(classColour(c), `${head.classes[c][0]} B`));
      add(BLOCK, 'large block');
    } else if (colour === 'occupancy') {
      [0, 0.25, 0.5, 0.75, 1].forEach((t) => add(ramp(FULLNESS, t), `${t * 100} % alive`));
    } else if (colour === 'age') {
      [[0, 'now'], [100, '0.1 s'], [1000, '1 s'], [10000, '10 s'], [100000, '100 s and more']]
        .forEach(([ms, text]) => add(ramp(AGES, ageOf(ms)), `came home ${text}${ms && ms < 100000 ? ' ago' : ''}`));
      add(NEUTRAL, 'nothing came home yet');
    } else {
      add(NEUTRAL, 'no tag known');
      Object.entries(tags).forEach(([id, name]) => add(tagColour(Number(id)), name));
    }
    add(IDLE, 'free, memory behind');
    add(CLEAN, 'free, none behind');
  }

  function refresh() {
    const snapshot = snapshots[frame], said = words[frame];
    const time = new Date(snapshot.time_ms).toISOString().replace('T', ' ').slice(0, 23);
    const since = ((snapshot.time_ms - snapshots[0].time_ms) / 1000).toFixed(1);
    at('moment').textContent =
      `Process ${head.pid}, snapshot ${frame + 1} of ${snapshots.length}, ${time} UTC` +
      (snapshots.length > 1 ? `, ${since} s after the first` : '') + `, ${snapshot.threads.length} thread cache${snapshot.threads.length === 1 ? '' : 's'}`;
    const bar = at('bar'), parts = at('parts');
    bar.textContent = parts.textContent = '';
    for (const [key, name, shade] of PARTS) {
      const part = snapshot.sum[key];
      const piece = make('div', undefined, bar);
      piece.style.background = shade;
      piece.style.flex = `${part} 0 0`;
      piece.title = `${name}: ${bytes(part)}`;
      const entry = make('li', undefined, parts);
      make('i', undefined, entry).style.background = shade;
      entry.append(`${name} ${bytes(part)}`);
      entry.dataset.part = key;
      entry.dataset.bytes = part;
    }
    at('words').textContent = said.lines.join('\n');
    const under = at('under');
    under.textContent = '';
    const model = modelOf(frame);
    const list = model.used.filter((cell) => cell.use.under_used).sort((a, b) => a.use.live - b.use.live);
    const SHOWN = 50, SITES = 3;
    list.slice(0, SHOWN).forEach((cell) => {
      const entry = make('li', undefined, under);
      const button = make('button', hex(cell.address), entry);
      button.type = 'button';
      button.addEventListener('click', () => {
        choose(cell, null);
        show(cell.x, cell.y, cell.x + 8, cell.y + 8);
      });
      const free = cell.use.free_in_spans + cell.use.free_granules;
      entry.append(` ${bytes(cell.use.live)} alive keep ${bytes(free)}`);
      cell.use.lines.slice(0, SITES).forEach((line) => make('small', line, entry));
      if (cell.use.sites.length > SITES) make('small', more(cell.use.sites.length - SITES), entry);
    });
    if (list.length > SHOWN) make('li', more(list.length - SHOWN), under).style.listStyle = 'none';
    if (!list.length) make('li', 'none', under);
    if (chosen) {
      chosen = model.cells.find((cell) => cell.address === chosen.address) || null;
      chosenItem = null;
    }
    at('frame').value = frame;
    describe();
    legend();
    course();
    draw();
  }

  // ---- the film ----

  function course() {
    const strip = at('course'), pen = strip.getContext('2d');
    strip.width = strip.clientWidth || 600;
    const most = Math.max(...snapshots.map((s) => s.sum.mapped - s.sum.returned - s.sum.metadata), 1);
    const step = strip.width / Math.max(1, snapshots.length);
    pen.clearRect(0, 0, strip.width, strip.height);
    snapshots.forEach((snapshot, i) => {
      let y = strip.height;
      for (const [key, , shade] of PARTS.slice(0, 5)) {
        const tall = (snapshot.sum[key] / most) * (strip.height - 4);
        pen.fillStyle = shade;
        pen.fillRect(i * step, y - tall, Math.max(1, step - 0.5), tall);
        y -= tall;
      }
    });
    pen.strokeStyle = '#000';
    pen.strokeRect(frame * step + 0.5, 0.5, Math.max(2, step - 1), strip.height - 1);
  }
  let timer = null;
  const go = (to) => { frame = (to + snapshots.length) % snapshots.length; refresh(); };
  const stop = () => { clearInterval(timer); timer = null; at('play').textContent = 'Play'; };
  at('play').addEventListener('click', () => {
    if (timer) return stop();
    at('play').textContent = 'Pause';
    if (frame === snapshots.length - 1) go(0);
    timer = setInterval(() => { if (frame === snapshots.length - 1) stop(); else go(frame + 1); }, 300);
  });
  at('frame').addEventListener('input', (event) => { stop(); go(Number(event.target.value)); });
  at('back').addEventListener('click', () => { stop(); go(frame - 1); });
  at('forth').addEventListener('click', () => { stop(); go(frame + 1); });
  at('course').addEventListener('click', (event) => {
    stop();
    go(Math.min(snapshots.length - 1, Math.floor(event.offsetX / event.target.clientWidth * snapshots.length)));
  });

  // ---- hands on the picture ----

  at('colour').addEventListener('change', (event) => { colour = event.target.value; legend(); draw(); });
  at('closer').addEventListener('click', () => zoomBy(1.6, size()[0] / 2, size()[1] / 2));
  at('wider').addEventListener('click', () => zoomBy(1 / 1.6, size()[0] / 2, size()[1] / 2));
  at('fit').addEventListener('click', () => fit(modelOf(frame).used));
  at('whole').addEventListener('click', () => fit(modelOf(frame).cells));
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  }, { passive: false });
  let drag = null;
  canvas.addEventListener('pointerdown', (event) => {
    drag = { x: event.offsetX, y: event.offsetY, vx: view.x, vy: view.y, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointermove', (event) => {
    const tip = at('tip');
    if (drag) {
      const [dx, dy] = [event.offsetX - drag.x, event.offsetY - drag.y];
      drag.moved = drag.moved || Math.hypot(dx, dy) > 4;
      if (drag.moved) {
        view.x = drag.vx - dx / view.zoom;
        view.y = drag.vy - dy / view.zoom;
        tip.hidden = true;
        draw();
      }
      return;
    }
    const [x, y] = toWorld(event.offsetX, event.offsetY), cell = cellAt(x, y);
    tip.hidden = !cell;
    if (!cell) return;
    const item = cell.use && itemAt(cell, x, y);
    const lines = [`hugepage ${hex(cell.address)}`];
    if (!cell.use) lines.push(cell.clean === cell.free ? 'free, nothing behind' : 'free, memory behind');
    else {
      lines.push(`${bytes(cell.use.live)} of ${bytes(head.hugepage)} alive`);
      if (item && item.block) lines.push('large block');
      else if (item) lines.push(`span of ${item.objects} × ${item.size} B: ${item.live} live, ${item.cached} cached`);
      else lines.push('free granule');
    }
    tip.textContent = lines.join('\n');
    tip.style.left = Math.min(event.offsetX + 14, size()[0] - 240) + 'px';
    tip.style.top = event.offsetY + canvas.offsetTop + 14 + 'px';
  });
  canvas.addEventListener('pointerup', (event) => {
    const still = drag && !drag.moved;
    drag = null;
    if (!still) return;
    const [x, y] = toWorld(event.offsetX, event.offsetY), cell = cellAt(x, y) || null;
    choose(cell, cell && cell.use ? itemAt(cell, x, y) : null);
  });
  canvas.addEventListener('pointerleave', () => { at('tip').hidden = true; });
  canvas.addEventListener('keydown', (event) => {
    const [width, height] = size(), step = 60 / view.zoom;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) {
      view.x += moves[event.key][0];
      view.y += moves[event.key][1];
      draw();
    } else if (event.key === '+' || event.key === '=') zoomBy(1.6, width / 2, height / 2);
    else if (event.key === '-') zoomBy(1 / 1.6, width / 2, height / 2);
    else return;
    event.preventDefault();
  });
  window.addEventListener('resize', () => { course(); draw(); });

  at('command').textContent = head.command || 'a program';
  at('film').hidden = snapshots.length < 2;
  at('frame').max = snapshots.length - 1;
  refresh();
  fit(modelOf(frame).used.length ? modelOf(frame).used : modelOf(frame).cells);
})();
