// A photo, chosen from disk or taken by the camera, with the joints found in it and a box to draw.
// Coordinates are pixels of the photo; a pixel's centre lies at integers.

const PART = 4 * 2 ** 20; // bytes a message; the server takes 10 MiB at most
const LIMIT = 64 * 2 ** 20; // bytes of a file
const LEAST = 6; // CSS pixels; a shorter drag is a click and no box

function create(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function send(model, file, name) {
  if (file.size > LIMIT) {
    model.send({ type: "refused", reason: `${name}: is larger than ${LIMIT / 2 ** 20} MiB; send a smaller photo` });
    return;
  }
  let bytes;
  try {
    bytes = await file.arrayBuffer();
  } catch (error) {
    model.send({ type: "refused", reason: `${name}: cannot be read (${error.name}); has it been moved? Choose it again` });
    return;
  }
  const count = Math.max(1, Math.ceil(bytes.byteLength / PART));
  for (let index = 0; index < count; index++) {
    const part = bytes.slice(index * PART, (index + 1) * PART);
    model.send({ type: "part", name, index, count }, undefined, [part]);
  }
}

function camera(model, view) {
  const hint = create("span", { className: "davae-hint" });
  const open = create("button", { type: "button", className: "davae-button", textContent: "use the camera" });
  if (!navigator.mediaDevices?.getUserMedia) return []; // no camera, or a page that may not use one
  open.onclick = async () => {
    let stream;
    open.disabled = true;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      open.disabled = false;
      hint.textContent = `The camera cannot be used (${error.name}); allow it, or choose a file.`;
      return;
    }
    hint.textContent = "";
    const video = create("video", { autoplay: true, muted: true, playsInline: true, srcObject: stream });
    const take = create("button", { type: "button", className: "davae-button", textContent: "take the picture" });
    const cancel = create("button", { type: "button", className: "davae-button", textContent: "cancel" });
    const live = create("div", { className: "davae-live" }, video, create("div", {}, take, cancel));
    const close = () => {
      stream.getTracks().forEach((track) => track.stop());
      live.remove();
      open.disabled = false;
    };
    cancel.onclick = close;
    take.onclick = () => {
      const [width, height] = [video.videoWidth, video.videoHeight];
      if (!width) return; // no picture has come yet
      const still = create("canvas", { width, height });
      still.getContext("2d").drawImage(video, 0, 0);
      const sent = (blob) => {
        if (blob) send(model, blob, "camera.jpg");
        else hint.textContent = "The picture could not be kept; take another.";
      };
      still.toBlob(sent, "image/jpeg", 0.95);
      close();
    };
    view.before(live);
  };
  return [open, hint];
}

function render({ model, el }) {
  const view = create("canvas", { className: "davae-photo", role: "img", hidden: true });
  const input = create("input", { type: "file", accept: "image/*" });
  const choose = create("label", { className: "davae-button" }, "choose a photo", input);
  input.onchange = () => {
    const [file] = input.files;
    if (file) send(model, file, file.name);
    input.value = ""; // the same file may be chosen again
  };
  const status = create("span", { className: "davae-hint" });
  let photo = null; // as an ImageBitmap
  let drag = null; // [x, y, x, y] in photo pixels while a box is drawn

  const size = () => model.get("size");
  const scale = () => view.width / size()[0];
  const toView = (u) => (u + 0.5) * scale();

  function draw() {
    if (!photo) return;
    const pen = view.getContext("2d");
    const unit = view.width / 480; // lines keep their width on screen
    pen.drawImage(photo, 0, 0, view.width, view.height);
    const box = drag ? toBox(drag) : model.get("found");
    if (box.length) {
      pen.lineWidth = 2 * unit;
      pen.setLineDash(drag ? [6 * unit, 4 * unit] : []);
      pen.strokeStyle = "#d6322d";
      pen.strokeRect(toView(box[0] - 0.5), toView(box[1] - 0.5), box[2] * scale(), box[3] * scale());
      pen.setLineDash([]);
    }
    const joints = drag ? [] : model.get("joints");
    pen.lineCap = "round";
    for (const [width, colour] of [[5.5, "white"], [3.2, null]]) { // a white edge below, then the bones
      for (const [from, to, own] of joints.length ? model.get("bones") : []) {
        pen.lineWidth = width * unit;
        pen.strokeStyle = colour ?? own;
        pen.beginPath();
        pen.moveTo(...joints[from].map(toView));
        pen.lineTo(...joints[to].map(toView));
        pen.stroke();
      }
    }
    view.dataset.joints = joints.length;
    view.ariaLabel = joints.length ? "the photo with 21 joints over it" : "the photo";
  }

  // A box as (x, y, w, h): its first pixel's centre lies half a pixel inside the border.
  const toBox = ([a, b, c, d]) => [Math.min(a, c) + 0.5, Math.min(b, d) + 0.5, Math.abs(c - a), Math.abs(d - b)];

  async function load() {
    const bytes = model.get("picture");
    if (!bytes?.byteLength) {
      photo = null;
      view.hidden = true;
      return;
    }
    const picture = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
    if (bytes !== model.get("picture")) return; // another photo has come, or been refused, meanwhile
    photo = picture;
    [view.width, view.height] = [photo.width, photo.height];
    view.hidden = false;
    draw();
  }

  function locate(event) {
    const frame = view.getBoundingClientRect();
    const [width, height] = size();
    const u = ((event.clientX - frame.left) / frame.width) * width - 0.5;
    const v = ((event.clientY - frame.top) / frame.height) * height - 0.5;
    return [Math.min(Math.max(u, 0), width - 1), Math.min(Math.max(v, 0), height - 1)];
  }

  view.onpointerdown = (event) => {
    if (!photo) return;
    view.setPointerCapture(event.pointerId);
    drag = [...locate(event), ...locate(event)];
  };
  view.onpointermove = (event) => {
    if (!drag) return;
    drag = [...drag.slice(0, 2), ...locate(event)];
    draw();
  };
  view.onpointerup = () => {
    if (!drag) return;
    const box = toBox(drag);
    const least = (LEAST * size()[0]) / view.getBoundingClientRect().width;
    drag = null;
    if (Math.min(box[2], box[3]) >= least) {
      model.set("drawn", box);
      model.save_changes();
    }
    draw();
  };
  view.onpointercancel = () => {
    drag = null;
    draw();
  };

  const showStatus = () => (status.textContent = model.get("busy") ? "looking for the hand ..." : "");
  model.on("change:picture", load);
  model.on("change:joints", draw);
  model.on("change:found", draw);
  model.on("change:busy", showStatus);
  el.append(create("div", { className: "davae-row" }, choose, ...camera(model, view), status), view);
  load();
  showStatus();
}

export default { render };
