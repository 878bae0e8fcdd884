// A file of this page, as a Blob; what does not come is refused in one line.

import { Refusal } from "./refusal.js";

export async function fetched(address, name, remedy = "load the page again") {
  let answer;
  try {
    answer = await fetch(address);
    if (answer.ok) return await answer.blob();
  } catch {
    throw new Refusal(`${name}: cannot be fetched; check the connection, and ${remedy}`);
  }
  throw new Refusal(`${name}: the server answers ${answer.status}; ${remedy}`);
}
