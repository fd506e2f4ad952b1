// The recorded hand: sliders choose among frames that were decoded beforehand, and dragging turns the hand.
// Every element of class davae-recorded names its views (image, mesh, cloud) and its controls (pose, appearance,
// shape, turn, tilt). frames.js holds the frames; the pictures lie in frames.webp beside this file.

(() => {
  const HOME = document.currentScript.src.replace(/[^/]*$/, "");
  const PX = 320; // of the views' bitmaps
  const TURN = { turn: [-180, 180], tilt: [-90, 90] };
  const STEP_DEG = 5;
  const CAPTIONS = {
    image: "picture: reads all blocks",
    mesh: "mesh through the joints: reads pose",
    cloud: "cloud: reads pose and shape",
  };
  const FLESH = [222, 178, 150];
  const AMBIENT = 0.35;
  // Near points bright: viridis from its yellow end to its purple end.
  const DEPTHS = [[253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [68, 1, 84]];

  const create = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  async function unpack(text, type) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new type(await new Response(stream).arrayBuffer());
  }

  async function load() {
    const frames = { ...window.davaeFrames };
    frames.sheet = new Image();
    frames.sheet.src = `${HOME}frames.webp`;
    const [vertices, faces, clouds] = await Promise.all([
      unpack(frames.vertices, Int16Array), unpack(frames.faces, Uint16Array), unpack(frames.clouds, Int8Array),
      frames.sheet.decode(),
    ]);
    const size = vertices.length / frames.steps.pose;
    for (let i = size; i < vertices.length; i++) vertices[i] += vertices[i - size]; // changes, step by step
    return { ...frames, vertices, faces, clouds };
  }

  // The rotation that shows the hand from a place on the globe around it, row by row.
  function viewFrom(turn, tilt) {
    const [ct, st, ci, si] = [Math.cos(turn), Math.sin(turn), Math.cos(tilt), Math.sin(tilt)];
    return [ct, 0, st, si * st, ci, -si * ct, -ci * st, si, ci * ct];
  }

  function rotate(points, begin, count, unit, r) {
    const out = new Float32Array(3 * count);
    for (let i = 0; i < 3 * count; i += 3) {
      const [x, y, z] = [points[begin + i] * unit, points[begin + i + 1] * unit, points[begin + i + 2] * unit];
      for (let k = 0; k < 3; k++) out[i + k] = r[3 * k] * x + r[3 * k + 1] * y + r[3 * k + 2] * z;
    }
    return out;
  }

  function drawMesh(pen, frames, pose, rotation) {
    const size = frames.vertices.length / frames.steps.pose;
    const points = rotate(frames.vertices, pose * size, size / 3, frames.units_mm, rotation);
    const scale = PX / 2 / frames.half_mm;
    const seen = []; // faces towards the viewer: distance, brightness, corners
    for (let f = 0; f < frames.faces.length; f += 3) {
      const [a, b, c] = [3 * frames.faces[f], 3 * frames.faces[f + 1], 3 * frames.faces[f + 2]];
      const [ux, uy, uz] = [points[b] - points[a], points[b + 1] - points[a + 1], points[b + 2] - points[a + 2]];
      const [vx, vy, vz] = [points[c] - points[a], points[c + 1] - points[a + 1], points[c + 2] - points[a + 2]];
      const [nx, ny, nz] = [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx];
      if (nz >= 0) continue; // z points away from the viewer
      // Light from the viewer's upper left.
      const lit = Math.max(0, (-0.3 * nx - 0.35 * ny - 0.88 * nz) / (Math.hypot(nx, ny, nz) || 1));
      seen.push([points[a + 2] + points[b + 2] + points[c + 2], AMBIENT + (1 - AMBIENT) * lit, a, b, c]);
    }
    seen.sort((one, other) => other[0] - one[0]);
    for (const [, lit, a, b, c] of seen) {
      pen.beginPath();
      for (const i of [a, b, c]) pen.lineTo(PX / 2 + points[i] * scale, PX / 2 + points[i + 1] * scale);
      pen.closePath();
      pen.fillStyle = pen.strokeStyle = `rgb(${FLESH.map((value) => Math.round(value * lit))})`;
      pen.fill();
      pen.stroke(); // closes the hairlines between neighbours
    }
  }

  function depthColour(share) {
    const place = Math.min(Math.max(share, 0), 1) * (DEPTHS.length - 1);
    const low = Math.min(Math.floor(place), DEPTHS.length - 2);
    return DEPTHS[low].map((value, k) => Math.round(value + (place - low) * (DEPTHS[low + 1][k] - value)));
  }

  function drawCloud(pen, frames, pose, shape, rotation) {
    const count = frames.clouds.length / (3 * frames.steps.pose * frames.steps.shape);
    const begin = 3 * count * (pose * frames.steps.shape + shape);
    const points = rotate(frames.clouds, begin, count, frames.cloud_mm, rotation);
    const scale = PX / 2 / frames.half_mm;
    const order = [...Array(count).keys()].sort((one, other) => points[3 * other + 2] - points[3 * one + 2]);
    for (const i of order) {
      const [x, y, z] = points.subarray(3 * i, 3 * i + 3);
      pen.fillStyle = `rgb(${depthColour(0.5 + z / (1.4 * frames.half_mm))})`;
      pen.beginPath();
      pen.arc(PX / 2 + x * scale, PX / 2 + y * scale, 2.6, 0, 7);
      pen.fill();
    }
  }

  function drawImage(pen, frames, { pose, appearance, shape }) {
    const [width, height] = frames.size;
    const row = appearance * frames.steps.shape + shape;
    pen.drawImage(frames.sheet, pose * width, row * height, width, height, 0, 0, PX, PX);
  }

  function build(element, frames) {
    const state = { pose: 0, appearance: 0, shape: 0, turn: 0, tilt: 0 };
    const views = {};
    const inputs = {};
    const status = create("p", { className: "davae-status" });
    status.setAttribute("role", "status");
    let waiting = false;

    function show() {
      waiting = false;
      const rotation = viewFrom((state.turn * Math.PI) / 180, (state.tilt * Math.PI) / 180);
      for (const [name, view] of Object.entries(views)) {
        const pen = view.getContext("2d");
        pen.clearRect(0, 0, PX, PX);
        if (name === "image") drawImage(pen, frames, state);
        if (name === "mesh") drawMesh(pen, frames, state.pose, rotation);
        if (name === "cloud") drawCloud(pen, frames, state.pose, state.shape, rotation);
      }
      const [joints, cloud, colour] = frames.changes[state.pose][state.appearance][state.shape];
      status.textContent = `Since the first hand: joints ${joints.toFixed(1)} mm, cloud ${cloud.toFixed(1)} mm, ` +
        `colour ${colour.toFixed(1)} of 255`;
      element.dataset.state = JSON.stringify(state);
      for (const [name, [input, output]] of Object.entries(inputs)) {
        input.value = state[name];
        const share = (state[name] / (frames.steps[name] - 1)).toFixed(2);
        output.textContent = name in TURN ? `${state[name]}°` : share;
        input.setAttribute("aria-valuetext", name in TURN ? `${state[name]} degrees` : `${share} of the way`);
      }
    }

    function set(change) {
      Object.assign(state, change);
      for (const [name, [low, high]] of Object.entries(TURN)) {
        const degrees = STEP_DEG * Math.round(state[name] / STEP_DEG);
        // A turn goes round; a tilt ends at the poles.
        state[name] = name === "turn" ? ((((degrees + 180) % 360) + 360) % 360) - 180
          : Math.min(Math.max(degrees, low), high);
      }
      if (!waiting) requestAnimationFrame(show);
      waiting = true;
    }

    function makeView(name) {
      const view = create("canvas", { width: PX, height: PX, className: `davae-view davae-${name}` });
      view.setAttribute("role", "img");
      view.ariaLabel = CAPTIONS[name];
      if (name !== "image") {
        view.tabIndex = 0;
        view.ariaLabel += "; drag it, or use the arrow keys, to turn it";
        let drag = null;
        view.onpointerdown = (event) => {
          view.setPointerCapture(event.pointerId);
          drag = { x: event.clientX, y: event.clientY, turn: state.turn, tilt: state.tilt };
        };
        view.onpointermove = (event) => {
          if (!drag) return;
          const degrees = 180 / view.getBoundingClientRect().width; // half a turn from edge to edge
          set({ turn: drag.turn + (event.clientX - drag.x) * degrees,
                tilt: drag.tilt + (event.clientY - drag.y) * degrees });
        };
        view.onpointerup = view.onpointercancel = () => (drag = null);
        view.onkeydown = (event) => {
          const [turn, tilt] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
          if (!turn && !tilt) return;
          event.preventDefault(); // the page would scroll, or another page open
          event.stopPropagation();
          set({ turn: state.turn + turn * STEP_DEG, tilt: state.tilt + tilt * STEP_DEG });
        };
      }
      views[name] = view;
      return create("figure", {}, view, create("figcaption", { textContent: CAPTIONS[name] }));
    }

    function makeSlider(name) {
      const [low, high] = TURN[name] ?? [0, frames.steps[name] - 1];
      const input = create("input", { type: "range", min: low, max: high, step: name in TURN ? STEP_DEG : 1 });
      input.name = name;
      if (frames.hues[name]) input.style.setProperty("--hue", frames.hues[name]);
      input.oninput = () => set({ [name]: Number(input.value) });
      input.onkeydown = (event) => event.stopPropagation(); // arrow keys of the page open other pages
      const output = create("span", { className: "davae-value" });
      inputs[name] = [input, output];
      return create("label", {}, create("span", { textContent: name }), input, output);
    }

    const named = (key) => element.dataset[key].split(",");
    const reset = create("button", { type: "button", textContent: "reset" });
    reset.onclick = () => set({ pose: 0, appearance: 0, shape: 0, turn: 0, tilt: 0 });
    const controls = create("div", { className: "davae-controls" }, ...named("controls").map(makeSlider), reset);
    const shown = named("views").map(makeView);
    const all = shown.length > 1;
    if (all) {
      const ends = frames.ends.map((src, end) => {
        const text = `${["first", "second"][end]} hand, as encoded`;
        const picture = create("img", { src, alt: text, width: 96, height: 96 });
        picture.style.border = `3px solid ${frames.borders[end]}`;
        return create("figure", {}, picture, create("figcaption", { textContent: text }));
      });
      element.append(create("div", { className: "davae-ends" }, ...ends));
    }
    if (all) controls.append(status);
    element.append(create("div", { className: "davae-views" }, ...shown), controls);
    element.classList.toggle("davae-single", !all);
    show();
  }

  async function start() {
    const elements = document.querySelectorAll(".davae-recorded");
    try {
      const frames = await load();
      elements.forEach((element) => build(element, frames));
    } catch (error) {
      elements.forEach((element) => {
        element.textContent = `The recorded hand cannot be shown by this browser (${error.message}).`;
      });
      throw error;
    }
  }

  start();
})();
