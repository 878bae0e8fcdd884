// A volume as the slices across one of its axes. Rows and columns are the other two axes in their order.

const MEASURED = 16; // slices in which an image is measured, evenly spread

export class Stack {
  constructor({ grid, data }, axis) {
    const strides = [1, grid[0], grid[0] * grid[1]];
    const [rows, columns] = [0, 1, 2].filter((other) => other !== axis);
    Object.assign(this, { data, axis, count: grid[axis], height: grid[rows], width: grid[columns], step: strides[axis], down: strides[rows], right: strides[columns] });
  }

  // A copy of one slice, row by row.
  slice(number) {
    const { height, width, data, down, right } = this;
    const image = new Float32Array(height * width);
    for (let row = 0, place = 0; row < height; row++) {
      let from = number * this.step + row * down;
      for (let column = 0; column < width; column++, from += right) image[place++] = data[from];
    }
    return image;
  }

  put(number, image, target) {
    const { height, width, down, right } = this;
    for (let row = 0, place = 0; row < height; row++) {
      let to = number * this.step + row * down;
      for (let column = 0; column < width; column++, to += right) target[to] = image[place++];
    }
  }

  // Sixteen slices, evenly spread; all if there are fewer.
  spread() {
    const numbers = Array.from({ length: MEASURED }, (_, place) => Math.floor(((place + 0.5) * this.count) / MEASURED));
    return [...new Set(numbers)].map((number) => this.slice(number));
  }
}

export function extremes(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}
