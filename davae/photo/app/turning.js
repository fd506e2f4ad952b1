// A picture that is turned and tilted by dragging it; the kernel draws it anew.

function render({ model, el }) {
  const view = document.createElement("img");
  view.className = "widget-image davae-turning"; // styled as ipywidgets' own pictures
  view.alt = "drag to turn it";
  view.draggable = false;
  view.width = model.get("px");
  let drag = null; // its start: pointer, turn and tilt

  function show() {
    URL.revokeObjectURL(view.src);
    view.src = URL.createObjectURL(new Blob([model.get("value")], { type: "image/png" }));
  }

  const snap = (degrees) => model.get("step") * Math.round(degrees / model.get("step"));
  const wrap = (degrees) => ((((degrees + 180) % 360) + 360) % 360) - 180;

  view.onpointerdown = (event) => {
    view.setPointerCapture(event.pointerId);
    drag = { x: event.clientX, y: event.clientY, turn: model.get("turn_deg"), tilt: model.get("tilt_deg") };
  };
  view.onpointermove = (event) => {
    if (!drag) return;
    const degrees = 180 / view.getBoundingClientRect().width; // half a turn from edge to edge
    const turn = wrap(snap(drag.turn + (event.clientX - drag.x) * degrees));
    const tilt = snap(drag.tilt + (event.clientY - drag.y) * degrees);
    model.set({ turn_deg: turn, tilt_deg: Math.min(Math.max(tilt, -90), 90) });
    model.save_changes();
  };
  view.onpointerup = view.onpointercancel = () => (drag = null);
  model.on("change:value", show);
  el.append(view);
  show();
}

export default { render };
