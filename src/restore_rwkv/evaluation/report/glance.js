
/** A handle that is dragged, or moved by keys, over its parent; `moved` is told its share of the width. */
function dividerOf(label, start, moved) {
  const handle = element("div", {
    class: "divider", role: "slider", tabindex: 0, "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100,
  });
  let split = start;
  const put = share => {
    split = Math.max(0, Math.min(1, share));
    handle.style.left = `${100 * split}%`;
    handle.setAttribute("aria-valuenow", Math.round(100 * split));
    handle.setAttribute("aria-valuetext", `${Math.round(100 * split)} % of the width`);
    moved(split);
  };
  handle.addEventListener("keydown", event => {
    const steps = {ArrowLeft: -0.02, ArrowDown: -0.02, ArrowRight: 0.02, ArrowUp: 0.02, PageDown: -0.1, PageUp: 0.1, Home: -1, End: 1};
    if (!(event.key in steps)) return;
    event.preventDefault();
    put(split + steps[event.key]);
  });
  handle.addEventListener("pointerdown", event => handle.setPointerCapture(event.pointerId));
  handle.addEventListener("pointermove", event => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const box = handle.parentElement.getBoundingClientRect();
    put((event.clientX - box.left) / box.width);
  });
  put(split);
  return handle;
}

/** Makes the two small pictures beside a verdict one that is swiped, with all of its pixels. */
async function glance(figure, viewer) {
  const index = Number(figure.dataset.panel);
  const {shape: [height, width], windows: [[, black, white]], scale} = viewer.data.panels[index];
  const codes = await viewer.codesOf(index);
  const numbers = valuesOf(scale);
  const names = all("bdi", figure).map(each => each.textContent);
  const box = element("div", {class: "swiped"});
  box.style.aspectRatio = figure.dataset.ratio;
  box.style.maxWidth = `calc(${figure.dataset.ratio} * min(26rem, 70vh))`;
  const layers = figure.dataset.sides.split(" ").map((place, side) => {
    const canvas = element("canvas", {width, height, role: "img", "aria-label": names[side]});
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    codes[place].forEach((code, at) => {
      image.data.fill(255 * (numbers[code] - black) / (white - black || 1e-30), 4 * at, 4 * at + 3);
      image.data[4 * at + 3] = 255;
    });
    context.putImageData(image, 0, 0);
    return canvas;
  });
  box.append(...layers, ...names.map((name, side) => element("bdi", {class: side ? "right" : "left"}, name)));
  box.append(dividerOf(`Divider: ${names[0]} to its left, ${names[1]} to its right`, 0.5, share => {
    layers[1].style.clipPath = `inset(0 0 0 ${100 * share}%)`;
  }));
  find(".pair", figure).replaceWith(box);
}

begin();
