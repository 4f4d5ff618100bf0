/** DOM helpers. */

/** The element of index.html with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * Creates an element. Names with a hyphen and "role" are set as attributes, others as properties (className,
 * textContent, onclick, ...); children are elements or text.
 */
export function element(tag, properties = {}, ...children) {
  const result = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") result.setAttribute(name, value);
    else result[name] = value;
  }
  result.append(...children);
  return result;
}

/** 0.0314 -> "3.1 %". */
export const percent = (share) => `${(100 * share).toFixed(1)} %`;
