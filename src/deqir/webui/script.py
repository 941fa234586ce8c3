"""The script of the page: names and states that Gradio leaves out, and the slider of the comparison."""

SCRIPT = """
() => {
  const set = (element, name, value) => {
    if (element && value && element.getAttribute(name) !== value) element.setAttribute(name, value);
  };
  const titles = "[data-testid=block-info], [data-testid=block-label]";
  const title = (block) => block?.querySelector(titles)?.innerText.trim();
  let infos = 0;
  const describe = () => {
    for (const group of document.querySelectorAll("fieldset")) set(group, "aria-label", title(group));
    for (const info of document.querySelectorAll(".info-text")) {
      info.id ||= `info-${infos++}`;
      const block = info.closest(".block");
      const fields = block.matches("fieldset") ? [block] : block.querySelectorAll("input, textarea");
      for (const field of fields) set(field, "aria-describedby", info.id);
    }
    for (const button of document.querySelectorAll(".reset-button"))
      set(button, "aria-label", `Reset "${title(button.closest(".block"))}" to default value`);
    for (const button of document.querySelectorAll("#photo button, #mask button, #reference button")) {
      const kind = button.title === "Clear" ? "remove the file" : "click to upload, or drop a file";
      set(button, "aria-label", `${title(button.closest(".block"))}: ${kind}`);
    }
    for (const button of document.querySelectorAll("button.label-wrap")) {
      set(button, "aria-expanded", String(button.classList.contains("open")));
      set(button.querySelector(".icon"), "aria-hidden", "true");
    }
  };
  let waiting = false;
  const later = () => {
    if (!waiting) requestAnimationFrame(() => { waiting = false; describe(); });
    waiting = true;
  };
  const watched = { childList: true, subtree: true, attributes: true, attributeFilter: ["class"] };
  new MutationObserver(later).observe(document.body, watched);
  describe();
  document.addEventListener("input", (event) => {
    const slider = event.target.closest(".compare input");
    if (!slider) return;
    slider.closest(".compare").style.setProperty("--at", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} %`);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".compare .full");
    if (!button) return;
    if (document.fullscreenElement) document.exitFullscreen();
    else button.closest(".compare").requestFullscreen();
  });
}
"""
