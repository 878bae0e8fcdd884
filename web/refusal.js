// What a visitor has to change: one line with what is wrong, where, and the remedy.

export class Refusal extends Error {}

// A number with so many digits, as Python's format "g" writes it.
export function digits(number, count = 6) {
  return String(Number(number.toPrecision(count)));
}
