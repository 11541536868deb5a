// What all pages share: a choice in a form that says so is taken at once, without its button.
"use strict";
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-at-once]");
  if (form) form.requestSubmit();
});
