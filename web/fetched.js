// A file of this page, as a Blob; what does not come is refused in one line.

import { Refusal } from "./refusal.js";

export async function fetched(address, name) {
  let answer;
  try {
    answer = await fetch(address);
    if (answer.ok) return await answer.blob();
  } catch {
    throw new Refusal(`${name}: cannot be fetched; check the connection, and load the page again`);
  }
  throw new Refusal(`${name}: the server answers ${answer.status}; load the page again`);
}
