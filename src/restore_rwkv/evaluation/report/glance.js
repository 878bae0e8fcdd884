
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
