// What the Failures pages do beyond plain HTML. Without it, they work: times are in UTC, and a page
// that moves is brought up to date by loading it again.
(function () {
  "use strict";

  function two(number) {
    return String(number).padStart(2, "0");
  }

  function day(date) {
    return date.getFullYear() + "-" + two(date.getMonth() + 1) + "-" + two(date.getDate());
  }

  function minute(date) {
    return two(date.getHours()) + ":" + two(date.getMinutes());
  }

  function second(date) {
    return minute(date) + ":" + two(date.getSeconds());
  }

  // Times in the reader's own zone; the one in UTC stays as the hint.
  function localize(root) {
    root.querySelectorAll("time[datetime]").forEach(function (time) {
      var date = new Date(time.getAttribute("datetime"));
      if (isNaN(date)) return;
      if (!time.title) time.title = time.textContent;
      time.textContent = day(date) + " " + second(date);
    });
    root.querySelectorAll("text[data-time]").forEach(function (label) {
      var date = new Date(label.dataset.time);
      var dayText = date.toLocaleDateString(undefined, { day: "2-digit", month: "short" });
      if (label.dataset.kind === "day") label.textContent = dayText;
      else if (label.dataset.kind === "second") label.textContent = second(date);
      else label.textContent = (label.dataset.day === "1" ? dayText + " " : "") + minute(date);
    });
  }

  // The form's times: shown in the reader's zone, sent in UTC.
  function localizeForm() {
    document.querySelectorAll("[data-zone]").forEach(function (zone) {
      zone.textContent = "(your time)";
    });
    var inputs = document.querySelectorAll("input[type=datetime-local]");
    inputs.forEach(function (input) {
      var date = input.value ? new Date(input.value + "Z") : null;
      if (date && !isNaN(date)) input.value = day(date) + "T" + second(date);
    });
    inputs.forEach(function (input) {
      input.form.addEventListener("formdata", function (event) {
        var date = input.value ? new Date(input.value) : null;
        if (date && !isNaN(date)) event.formData.set(input.name, date.toISOString());
        else event.formData.delete(input.name);
      });
    });
    document.querySelectorAll(".failures-filter").forEach(function (form) {
      form.addEventListener("formdata", function (event) {
        // An address without what was left empty.
        new Set(event.formData.keys()).forEach(function (name) {
          var values = event.formData.getAll(name).filter(Boolean);
          event.formData.delete(name);
          values.forEach(function (value) { event.formData.append(name, value); });
        });
      });
    });
  }

  function followSelection() {
    document.querySelectorAll("form[data-selection]").forEach(function (form) {
      var all = form.querySelector("[data-select-all]");
      var button = form.querySelector("[data-needs-selection]");
      var count = form.querySelector("[data-selection-count]");
      if (!all || !button) return;
      var boxes = Array.from(form.querySelectorAll("input[name=job_id]"));

      function update() {
        var selected = boxes.filter(function (box) { return box.checked; }).length;
        button.disabled = selected === 0;
        all.checked = selected === boxes.length;
        all.indeterminate = selected > 0 && selected < boxes.length;
        count.textContent = selected ? selected + " selected" : "";
      }

      all.addEventListener("change", function () {
        boxes.forEach(function (box) { box.checked = all.checked; });
        update();
      });
      boxes.forEach(function (box) { box.addEventListener("change", update); });
      form.addEventListener("submit", function (event) {
        var question = button.dataset.confirm;
        if (question && !window.confirm(question)) event.preventDefault();
      });
      update();
    });
  }

  var live = true;

  function isInUse(part) {
    return part.contains(document.activeElement) || part.querySelector("details[open]") !== null;
  }

  // The button that stops the page from changing while somebody reads it.
  function offerLiveSwitch() {
    document.querySelectorAll("[data-live-switch]").forEach(function (button) {
      button.hidden = false;
      button.addEventListener("click", function () {
        live = !live;
        button.textContent = live ? "Pause updates" : "Resume updates";
      });
    });
  }

  // A part of the page that moves is fetched again, until it stands still.
  function follow(id) {
    var part = document.getElementById(id);
    if (!part || !part.dataset.live) return;
    window.setTimeout(function () {
      // What somebody is about to use stays under their hands.
      if (!live || document.hidden || isInUse(part)) return follow(id);
      fetch(window.location.href, { credentials: "same-origin" })
        .then(function (reply) {
          if (!reply.ok) throw new Error(reply.status);
          return reply.text();
        })
        .then(function (text) {
          var fresh = new DOMParser().parseFromString(text, "text/html").getElementById(id);
          if (!fresh) return;
          localize(fresh);
          part.replaceWith(document.adoptNode(fresh));
          announce(fresh);
          follow(id);
        })
        .catch(function () { follow(id); });
    }, Number(part.dataset.live));
  }

  var announced = "";

  // Says aloud that it came to another state, but not every step on the way.
  function announce(part) {
    var status = document.getElementById("failures-status");
    var text = part.dataset.status || "";
    if (status && text !== announced) status.textContent = text;
    announced = text;
  }

  localize(document);
  localizeForm();
  followSelection();
  offerLiveSwitch();
  ["job", "replay", "cancellation", "overview", "campaigns", "campaign"].forEach(function (id) {
    var part = document.getElementById(id);
    if (part) announced = part.dataset.status || "";
    follow(id);
  });
})();
