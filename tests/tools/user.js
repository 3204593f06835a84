// What a user does: zoom with the wheel, drag, click a concept, search, clear, change colours and theme.

const at = i => { const b = canvas.getBoundingClientRect(); return { clientX: b.left + X(i), clientY: b.top + Y(i), pointerId: 1, bubbles: true }; };
canvas.setPointerCapture = () => {};
const tried = {}, before = view.scale;
canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: -300, clientX: 300, clientY: 300, cancelable: true }));
tried.zoomed = view.scale / before;
const x = view.x;
canvas.dispatchEvent(new PointerEvent("pointerdown", { clientX: 200, clientY: 200, pointerId: 1 }));
canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: 240, clientY: 200, pointerId: 1 }));
canvas.dispatchEvent(new PointerEvent("pointerup", { clientX: 240, clientY: 200, pointerId: 1 }));
tried.dragged = view.x - x;
for (const type of ["pointerdown", "pointerup"]) canvas.dispatchEvent(new PointerEvent(type, at(7)));
tried.clicked = document.querySelector("#details h2").textContent;
$("search").value = "abstract"; $("search").dispatchEvent(new Event("input"));
tried.found = marked.size;
dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
tried.cleared = marked === null && chosen === -1;
for (const by of ["use", "age", "relevance", "region"]) { $("color").value = by; $("color").dispatchEvent(new Event("change")); paint(); }
$("theme").click(); tried.theme = document.documentElement.dataset.theme;
$("axis").querySelector("[data-axis=time]").click();
paint(); tried.colours = new Set(new Uint32Array(pen.getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size;
document.body.dataset.tried = JSON.stringify(tried);
