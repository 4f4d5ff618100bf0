/** What every module of the page needs of the document. */

/** The element of index.html with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * A new element. Properties are set on it (className, textContent, onclick, ...), names with a hyphen and "role" as
 * attributes; children are elements or text.
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** 0.0314 -> "3.1 %". */
export const percent = (share) => `${(100 * share).toFixed(1)} %`;
